//! TRANSACTION: the commands on the maildrop, and QUIT, which leads to UPDATE.

use super::capabilities::write_capabilities;
use super::command::{Command, ListedCommand, Number};
use super::maildrop::Maildrop;
use super::reply::{LOGGED_IN_ALREADY, NO_SUCH_MESSAGE, ok, refuse, reply, report_totals};
use super::session::{READ_COMMAND, Session, State, choose_language};
use super::{Next, SLICE_OCTETS, TERMINATOR, Transmission};
use crate::message::{Entry, Totals};

/// What the session knows of the maildrop: totals since login, the list once a command needed it.
#[derive(Debug)]
pub(super) enum View {
    Totals(Totals),
    List(Maildrop),
}

/// What a listing shows of each message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Column {
    Octets,
    Uid,
}

impl Session {
    pub(super) fn transact(&mut self, view: View, command: Command<'_>, out: &mut Vec<u8>) -> Next {
        self.bad_lines = 0;
        match command {
            Command::Quit => return self.update(&view, out),
            Command::Listed(command) => {
                return match view {
                    View::List(maildrop) => self.carry_out(maildrop, command, out),
                    View::Totals(totals) => {
                        self.state = State::Opening { totals, command };
                        Next::List
                    }
                };
            }
            Command::Stat => {
                let Totals { messages, octets } = view.remaining();
                ok(out, format_args!("{messages} {octets}"));
            }
            Command::Rset => return self.reset(view, out),
            Command::Noop => ok(out, format_args!("still here")),
            Command::Capa => write_capabilities(&self.policy, out),
            Command::Lang(range) => choose_language(range, out),
            Command::User(_)
            | Command::Pass(_)
            | Command::Apop { .. }
            | Command::Stls
            | Command::Auth { .. }
            | Command::Mechanisms
            | Command::Utf8 => refuse(out, LOGGED_IN_ALREADY),
        }
        self.transaction(view)
    }

    fn reset(&mut self, mut view: View, out: &mut Vec<u8>) -> Next {
        if let View::List(maildrop) = &mut view {
            maildrop.unmark_all();
        }
        report_totals(view.remaining(), out);
        self.transaction(view)
    }

    pub(super) fn carry_out(
        &mut self,
        mut maildrop: Maildrop,
        command: ListedCommand,
        out: &mut Vec<u8>,
    ) -> Next {
        let number = match command {
            ListedCommand::List(None) => {
                let Totals { messages, octets } = maildrop.remaining();
                ok(out, format_args!("{messages} messages ({octets} octets)"));
                return self.list(maildrop, Column::Octets, 0, out);
            }
            ListedCommand::Uidl(None) => {
                ok(out, format_args!("unique ids follow"));
                return self.list(maildrop, Column::Uid, 0, out);
            }
            ListedCommand::List(Some(number))
            | ListedCommand::Uidl(Some(number))
            | ListedCommand::Retr(number)
            | ListedCommand::Top { number, .. }
            | ListedCommand::Dele(number) => number,
        };
        let Some(index) = maildrop.position(number) else {
            refuse(out, NO_SUCH_MESSAGE);
            return self.transaction(View::List(maildrop));
        };
        match command {
            ListedCommand::Retr(_) => {
                let &Entry { octets, uid, .. } = maildrop.entry(index);
                let status = format!("+OK {octets} octets\r\n");
                return self.send(maildrop, Transmission { uid, body_lines: None, status });
            }
            ListedCommand::Top { body_lines, .. } => {
                let status = "+OK the top of the message follows\r\n".to_owned();
                let uid = maildrop.entry(index).uid;
                return self.send(maildrop, Transmission { uid, body_lines: Some(body_lines), status });
            }
            ListedCommand::List(_) => {
                let Entry { octets, .. } = maildrop.entry(index);
                ok(out, format_args!("{} {octets}", number.0));
            }
            ListedCommand::Uidl(_) => {
                ok(out, format_args!("{} {}", number.0, maildrop.entry(index).unique_id()));
            }
            ListedCommand::Dele(Number(number)) => {
                maildrop.mark(index);
                ok(out, format_args!("message {number} is deleted when you QUIT"));
            }
        }
        self.transaction(View::List(maildrop))
    }

    fn send(&mut self, maildrop: Maildrop, transmission: Transmission) -> Next {
        self.state = State::Sending(maildrop);
        Next::Send(transmission)
    }

    /// Writes lines from `index` on until a slice is full or the list ends.
    pub(super) fn list(
        &mut self,
        maildrop: Maildrop,
        column: Column,
        mut index: usize,
        out: &mut Vec<u8>,
    ) -> Next {
        while let Some(listed) = maildrop.listed_from(index) {
            let entry = maildrop.entry(listed);
            index = listed + 1;
            match column {
                Column::Octets => reply(out, format_args!("{index} {}", entry.octets)),
                Column::Uid => reply(out, format_args!("{index} {}", entry.unique_id())),
            }
            if out.len() >= SLICE_OCTETS {
                self.state = State::Listing { maildrop, column, index };
                return Next::Flush;
            }
        }
        out.extend_from_slice(TERMINATOR);
        self.transaction(View::List(maildrop))
    }

    fn update(&mut self, view: &View, out: &mut Vec<u8>) -> Next {
        match view {
            View::List(maildrop) if maildrop.has_marks() => {
                self.state = State::Committing;
                Next::Commit { deleted: maildrop.marked() }
            }
            View::List(_) | View::Totals(_) => self.close(out),
        }
    }

    pub(super) fn transaction(&mut self, view: View) -> Next {
        self.state = State::Transaction(view);
        READ_COMMAND
    }
}

impl View {
    fn remaining(&self) -> Totals {
        match self {
            View::Totals(totals) => *totals,
            View::List(maildrop) => maildrop.remaining(),
        }
    }
}
