//! `deliver` and `sendmail`: a message from a program on this machine, without a protocol.

use bincode::{Decode, Encode};

use super::reply::{Code, Delivered, Outcome, Refusal, Reply};
use crate::envelope::{Envelope, ForwardPath, Peer, Protocol};
use crate::intake::{self, Scope};
use crate::log::About;
use crate::settings::Settings;
use crate::store::{Incoming, Store};
use crate::verdict;
use crate::wire::{LineEnds, Receiver, Rejection};

/// The envelope of a message and the length of its content.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Submission {
    /// Empty for the null reverse path.
    pub reverse_path: String,
    /// As typed.
    pub recipients: Vec<String>,
    /// If some recipients cannot receive the message, deliver it to the others. Otherwise nobody gets it.
    pub to_each: bool,
    /// Octets of the content.
    pub octets: u64,
}

/// Receives the content; line ends become CRLF.
pub fn receiver(settings: &Settings) -> Receiver {
    Receiver::content(LineEnds::Normalise, settings.maxmessagesize.octets())
}

/// Delivers a message and returns the outcome for each recipient. `text` is what [`receiver`] made of the content.
pub async fn deliver(
    store: &Store,
    settings: &Settings,
    submission: &Submission,
    text: Result<Incoming, Rejection>,
) -> Result<Reply, Refusal> {
    let text = text.map_err(|refusal| match refusal {
        Rejection::TooLarge => {
            Refusal::new(Code::Malformed, format!("the message is larger than {}", settings.maxmessagesize))
                .with_hint("To allow more: winpop set maxmessagesize SIZE")
        }
        Rejection::BareLineEnd | Rejection::Nul => Refusal::new(
            Code::Malformed,
            "the message contains NUL octets or bare line ends, which no message may have",
        ),
        Rejection::DiskFull => Refusal::new(Code::Busy, "the disk is full"),
        Rejection::Fault => Refusal::fault("the message could not be written to the disk"),
    })?;
    // A malformed recipient is no mailbox.
    let (mut recipients, mut outcomes) = (Vec::new(), Vec::new());
    for typed in &submission.recipients {
        let typed = typed.trim().trim_start_matches('<').trim_end_matches('>');
        let path = match typed.eq_ignore_ascii_case("postmaster") {
            true => Some(ForwardPath::Postmaster),
            false => typed.parse().ok().map(ForwardPath::Mailbox),
        };
        outcomes.push(path.is_none().then_some(Outcome::NoSuchMailbox));
        recipients.extend(path);
    }
    let envelope = Envelope {
        reverse_path: submission.reverse_path.clone(),
        recipients,
        helo: String::new(),
        peer: Peer::Local,
        protocol: Protocol::Local,
    };
    let hostname = settings.hostname.as_str();
    let scope = if submission.to_each { Scope::Each } else { Scope::AllOrNone };
    let mut verdicts = match scope == Scope::AllOrNone && outcomes.iter().any(Option::is_some) {
        true => vec![verdict::Delivery::Withheld; envelope.recipients.len()],
        false => intake::deliver(store, &envelope, text, hostname, scope, About(None))
            .await
            .map_err(Refusal::fault)?,
    }
    .into_iter();
    let recipients = submission.recipients.iter().zip(outcomes).map(|(typed, outcome)| {
        let outcome = outcome
            .or_else(|| verdicts.next().map(Outcome::from))
            .expect("there is a verdict for each recipient of the envelope");
        Delivered { recipient: typed.clone(), outcome }
    });
    Ok(Reply::Delivered { recipients: recipients.collect() })
}

impl From<verdict::Delivery> for Outcome {
    fn from(verdict: verdict::Delivery) -> Self {
        match verdict {
            verdict::Delivery::Stored => Self::Stored,
            verdict::Delivery::NoSuchMailbox => Self::NoSuchMailbox,
            verdict::Delivery::OverQuota => Self::OverQuota,
            verdict::Delivery::Loop => Self::Loop,
            verdict::Delivery::DiskFull => Self::DiskFull,
            verdict::Delivery::Withheld => Self::Withheld,
        }
    }
}
