//! The relations between settings.

use super::{Method, Refused, Settings, Stored, refused};

impl Settings {
    /// Checks the relations between settings.
    pub(super) fn check(&self) -> Result<(), Refused> {
        let (max, min, threshold) = (self.socketmax.get(), self.socketmin.get(), self.socketthreshold.get());
        let holds = if max == min { threshold == 0 } else { threshold > 0 && max > min + threshold };
        if !holds {
            return Err(refused(
                &format!(
                    "socketmax {max} must be greater than socketmin {min} + socketthreshold {threshold} with a threshold of \
                     at least 1, or equal to socketmin with socketthreshold 0"
                ),
                "To set them together: winpop set socket BACKLOG MAX MIN THRESHOLD",
            ));
        }
        self.check_authentication()?;
        if !self.adopt.is_empty() && self.sparequired.is_on() {
            return Err(refused(
                "adopt needs the users' passwords to log in at the old server, and sparequired forbids sending them",
                "Set sparequired to 0, or adopt to default",
            ));
        }
        if self.lmtpport.get() == 25 {
            return Err(refused(
                "lmtpport cannot be 25 (RFC 2033 section 5): other mail servers would speak SMTP to it",
                "Choose another port; the default is 24",
            ));
        }
        let ports = [
            ("port", self.port.get()),
            ("tlsport", self.tlsport.get()),
            ("smtpport", self.smtpport.get()),
            ("lmtpport", self.lmtpport.get()),
        ];
        for (i, (name, port)) in ports.iter().enumerate() {
            if let Some((other, _)) = ports[..i].iter().find(|(_, taken)| taken == port && *port != 0) {
                return Err(refused(
                    &format!("{other} and {name} are both {port}"),
                    "Choose another port for one of them",
                ));
            }
        }
        Ok(())
    }

    /// Checks that the domain role has the method, and that the method has the settings it needs.
    fn check_authentication(&self) -> Result<(), Refused> {
        if self.method_number().is_none() {
            return Err(refused(
                &format!(
                    "domainrole {} does not have the authentication method {}",
                    self.domainrole,
                    self.authentication.name()
                ),
                "Set domainrole to one that has it, or authentication to the password file first",
            ));
        }
        let has_proofs = match self.authentication {
            Method::PasswordFile => true,
            Method::ActiveDirectory => self.adntlm.get().is_some(),
            Method::LocalAccounts => false,
        };
        if self.sparequired.is_on() && !has_proofs {
            return Err(refused(
                &format!(
                    "with sparequired nobody could log in: {} can only check a password that the client sends",
                    self.authentication.name()
                ),
                match self.authentication {
                    Method::ActiveDirectory => "Set sparequired to 0, or adntlm to the socket of ntlm_auth",
                    _ => "Set sparequired to 0",
                },
            ));
        }
        if self.authentication != Method::ActiveDirectory {
            return Ok(());
        }
        let needed = [
            (Stored::adbasedn, self.adbasedn.get().is_some()),
            (Stored::adbinduser, self.adbinduser.get().is_some()),
            (Stored::adbindpassword, self.adbindpassword.get().is_some()),
        ];
        if let Some((missing, _)) = needed.iter().find(|(_, is_set)| !is_set) {
            return Err(refused(
                &format!("authentication by Active Directory needs {}", missing.name()),
                &format!("To set it: winpop set {} VALUE", missing.name()),
            ));
        }
        Ok(())
    }
}
