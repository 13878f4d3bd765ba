//! Syslog at `/dev/log`, for commands that run without a service. If nobody listens there, as in a container, nothing
//! is logged.

use std::io;
use std::os::unix::net::UnixDatagram;

use log::{Log, Metadata, Record};

use super::priority;

const SOCKET: &str = "/dev/log";
/// `LOG_MAIL` of syslog(3), the facility.
const FACILITY_MAIL: u8 = 2 << 3;

pub struct Syslog(UnixDatagram);

impl Syslog {
    pub fn connect() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SOCKET)?;
        // A stalled log must not block the administrator.
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }
}

impl Log for Syslog {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if !super::is_for_administrators(record) {
            return;
        }
        let priority = FACILITY_MAIL | priority(record.level(), record.target());
        let said = super::one_line(record);
        let line = format!("<{priority}>{}[{}]: {said}", env!("CARGO_PKG_NAME"), std::process::id());
        // If the log cannot be written, nothing can report that.
        let _ = self.0.send(line.as_bytes());
    }

    fn flush(&self) {}
}
