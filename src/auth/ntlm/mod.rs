//! NTLM (MS-NLMP), the server's side.

/// The least response that is accepted; better ones always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Also NTLMv1, which anybody who chooses our challenge can look up in a table.
    V1,
    /// Also NTLM2 session responses: NTLMv1 with a challenge of the client's in it.
    Session,
    /// NTLMv2 alone.
    V2,
}
