//! TRANSACTION: the commands on the list, and QUIT, which leads to UPDATE.

use super::capabilities::write_capabilities;
use super::command::{Command, ListedCommand, Number};
use super::message_list::MessageList;
use super::reply::{LOGGED_IN_ALREADY, NO_SUCH_MESSAGE, ok, refuse, reply, report_totals};
use super::session::{READ_COMMAND, Session, State, choose_language};
use super::{Next, SLICE_OCTETS, TERMINATOR, Transmission};
use crate::message::{Entry, Totals};

/// What the session knows of the maildrop: totals since login, the list once a command needed it.
#[derive(Debug)]
pub(super) enum Messages {
    Totals(Totals),
    List(MessageList),
}

/// What a listing shows of each message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Column {
    Octets,
    Uid,
}

impl Session {
    pub(super) fn transact(&mut self, messages: Messages, command: Command<'_>, out: &mut Vec<u8>) -> Next {
        self.bad_lines = 0;
        match command {
            Command::Quit => return self.update(&messages, out),
            Command::Listed(command) => {
                return match messages {
                    Messages::List(list) => self.carry_out(list, command, out),
                    Messages::Totals(totals) => {
                        self.state = State::Opening { totals, command };
                        Next::List
                    }
                };
            }
            Command::Stat => {
                let Totals { messages, octets } = messages.remaining();
                ok(out, format_args!("{messages} {octets}"));
            }
            Command::Rset => return self.reset(messages, out),
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
        self.transaction(messages)
    }

    fn reset(&mut self, mut messages: Messages, out: &mut Vec<u8>) -> Next {
        if let Messages::List(list) = &mut messages {
            list.unmark_all();
        }
        report_totals(messages.remaining(), out);
        self.transaction(messages)
    }

    pub(super) fn carry_out(
        &mut self,
        mut list: MessageList,
        command: ListedCommand,
        out: &mut Vec<u8>,
    ) -> Next {
        let number = match command {
            ListedCommand::List(None) => {
                let Totals { messages, octets } = list.remaining();
                ok(out, format_args!("{messages} messages ({octets} octets)"));
                return self.list(list, Column::Octets, 0, out);
            }
            ListedCommand::Uidl(None) => {
                ok(out, format_args!("unique ids follow"));
                return self.list(list, Column::Uid, 0, out);
            }
            ListedCommand::List(Some(number))
            | ListedCommand::Uidl(Some(number))
            | ListedCommand::Retr(number)
            | ListedCommand::Top { number, .. }
            | ListedCommand::Dele(number) => number,
        };
        let Some(index) = list.position(number) else {
            refuse(out, NO_SUCH_MESSAGE);
            return self.transaction(Messages::List(list));
        };
        match command {
            ListedCommand::Retr(_) => {
                let &Entry { octets, uid, .. } = list.entry(index);
                let status = format!("+OK {octets} octets\r\n");
                return self.send(list, Transmission { uid, body_lines: None, status });
            }
            ListedCommand::Top { body_lines, .. } => {
                let status = "+OK the top of the message follows\r\n".to_owned();
                let uid = list.entry(index).uid;
                return self.send(list, Transmission { uid, body_lines: Some(body_lines), status });
            }
            ListedCommand::List(_) => {
                let Entry { octets, .. } = list.entry(index);
                ok(out, format_args!("{} {octets}", number.0));
            }
            ListedCommand::Uidl(_) => {
                ok(out, format_args!("{} {}", number.0, list.entry(index).unique_id()));
            }
            ListedCommand::Dele(Number(number)) => {
                list.mark(index);
                ok(out, format_args!("message {number} is deleted when you QUIT"));
            }
        }
        self.transaction(Messages::List(list))
    }

    fn send(&mut self, list: MessageList, transmission: Transmission) -> Next {
        self.state = State::Sending(list);
        Next::Send(transmission)
    }

    /// Writes lines from `index` on until a slice is full or the list ends.
    pub(super) fn list(
        &mut self,
        list: MessageList,
        column: Column,
        mut index: usize,
        out: &mut Vec<u8>,
    ) -> Next {
        while let Some(listed) = list.listed_from(index) {
            let entry = list.entry(listed);
            index = listed + 1;
            match column {
                Column::Octets => reply(out, format_args!("{index} {}", entry.octets)),
                Column::Uid => reply(out, format_args!("{index} {}", entry.unique_id())),
            }
            if out.len() >= SLICE_OCTETS {
                self.state = State::Listing { list, column, index };
                return Next::Flush;
            }
        }
        out.extend_from_slice(TERMINATOR);
        self.transaction(Messages::List(list))
    }

    fn update(&mut self, messages: &Messages, out: &mut Vec<u8>) -> Next {
        match messages {
            Messages::List(list) if list.has_marks() => {
                self.state = State::Committing;
                Next::Commit { deleted: list.marked() }
            }
            Messages::List(_) | Messages::Totals(_) => self.close(out),
        }
    }

    pub(super) fn transaction(&mut self, messages: Messages) -> Next {
        self.state = State::Transaction(messages);
        READ_COMMAND
    }
}

impl Messages {
    fn remaining(&self) -> Totals {
        match self {
            Messages::Totals(totals) => *totals,
            Messages::List(list) => list.remaining(),
        }
    }
}
