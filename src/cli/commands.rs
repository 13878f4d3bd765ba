//! The commands of `pop3svc` other than `winpop`: their arguments and help.

use argh::{ArgsInfo, FromArgs};

/// A POP3 mail drop in one data file.
#[derive(FromArgs, ArgsInfo)]
#[argh(name = "pop3svc")]
pub struct Pop3svc {
    #[argh(subcommand)]
    pub command: Command,
}

/// A command of `pop3svc`.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(subcommand)]
pub enum Command {
    Quickstart(Quickstart),
    Serve(Serve),
    Health(Health),
    Deliver(Deliver),
    Import(Import),
    Export(Export),
    Backup(Backup),
    Restore(Restore),
    Check(Check),
    Compact(Compact),
    Key(Key),
    Link(Link),
    Completions(Completions),
    Man(Man),
}

/// Creates a mail store with a first mailbox and message, and serves it.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "quickstart",
    note = "Prints the mailbox's password, the settings for a mail program, and a curl command that fetches the first \
            message. Only programs on this machine can connect, unless the setting listen or --listen says otherwise. If \
            port 110 is taken or not permitted, unprivileged ports are used for this run."
)]
pub struct Quickstart {
    /// IP addresses to listen on in this run; * = all
    #[argh(option, arg_name = "ADDRESSES")]
    pub listen: Option<String>,
    /// the mailbox to create (default: user@example.com)
    #[argh(positional, arg_name = "USER@DOMAIN")]
    pub address: Option<String>,
}

/// Runs the service in the foreground.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "serve",
    note = "SIGTERM and SIGINT stop it: it accepts no new connections, and open sessions have shutdowngrace seconds to \
            end.",
    note = "At start it creates the domain named by WINPOP_DOMAIN and the mailbox named by WINPOP_USER, with the password \
            in WINPOP_PASSWORD_FILE, unless they exist."
)]
pub struct Serve {}

/// Checks that the service answers: prints one line and exits with 0 or 1.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "health",
    note = "Without ADDRESS, it asks over the control socket, which only root and the service's user may use. With ADDRESS, \
            it waits for the greeting to a POP3 client, which anyone may do. A service that does not answer within five \
            seconds is not healthy.",
    example = "pop3svc health",
    example = "pop3svc health 127.0.0.1:110"
)]
pub struct Health {
    /// an IP address and port where it serves POP3
    #[argh(positional, arg_name = "ADDRESS")]
    pub address: Option<String>,
}

/// Delivers the message on standard input.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "deliver",
    note = "Exit codes are those of sysexits.h: 64 wrong usage, 65 unacceptable message, 67 no such mailbox, 69 no mail \
            store, 73 over quota, 75 try again later. Invoked as sendmail, the program takes sendmail's usual switches.",
    example = "pop3svc deliver -f alice@example.org bob@example.com < message.eml"
)]
pub struct Deliver {
    /// the envelope sender
    #[argh(option, short = 'f', arg_name = "SENDER")]
    pub from: Option<String>,
    /// take recipients from the To, Cc and Bcc fields too
    #[argh(switch, short = 't', hidden_help)]
    pub to_header: bool,
    /// deliver to every recipient that can take the message, even if others cannot
    #[argh(switch)]
    pub each: bool,
    /// the mailboxes to deliver to
    #[argh(positional, arg_name = "USER@DOMAIN")]
    pub recipients: Vec<String>,
}

/// Imports mailboxes from another mail server, keeping their unique ids.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "import",
    note = "The formats are maildir (of Dovecot, Courier and others), mbox, eml (a directory of .eml files), list (lines of \
            FILE, a tab and the unique id) and windows (the mail root of the Windows service).",
    note = "To import many mailboxes, write the words domain and user, each in braces, into PATH. With windows, PATH may be \
            the whole mail root or the directory of a domain or mailbox.",
    note = "Messages keep their contents, their order and, where they can be determined, the unique ids by which mail \
            programs know them. If the command was interrupted, repeat it: it continues and imports nothing twice. The \
            service may be running.",
    note = "--uidl says how the other server makes its ids, in the notation of Dovecot's pop3_uidl_format: %u and %v (UID and \
            UIDVALIDITY; %08Xu in hexadecimal), %f and %b (file name, with and without extension), %g (GUID), %Mf (MD5). If you \
            do not know it, let --seen name the file in which a user's mail program notes what it has fetched; the format that \
            matches those ids is used.",
    note = "After the import, repeat the command with --verify. It compares ids, sizes and order, and says how many messages \
            will be fetched again by mail programs that leave mail on the server; the exit code is 1 if any will. It changes \
            nothing.",
    note = "--from fetches from a running POP3 server: pop3s://HOST uses TLS from the start, pop3://HOST requires STLS, \
            pop3+clear://HOST uses no TLS. If the server's login names are not whole addresses, write their form and an @ \
            before the host, with the words user and domain in braces. Nothing is deleted there. A mailbox here is closed \
            to its user until all of its mail has arrived.",
    note = "Each line of --users has USER@DOMAIN, a tab and the password, then optionally a tab and the login name if that \
            differs. With --master, leave out the passwords.",
    example = "pop3svc import --from pop3s://old.example.com --users users.txt --make",
    example = "pop3svc import maildir /home/bob/Maildir bob@example.com --dry-run",
    example = "pop3svc import windows /srv/mailbox --make --uidl %b",
    example = "pop3svc import mbox /var/mail/bob bob@example.com",
    example = "pop3svc import windows /srv/mailbox bob@example.com --seen .fetchids"
)]
pub struct Import {
    /// the format (maildir, mbox, eml, list or windows), the directory or file, and the mailbox to import into; with
    /// --from only the mailbox
    #[argh(positional, arg_name = "FORMAT PATH USER@DOMAIN")]
    pub words: Vec<String>,
    /// fetch the mail from this POP3 server
    #[argh(option, arg_name = "URL")]
    pub from: Option<String>,
    /// the list of mailboxes to fetch, with their passwords
    #[argh(option, arg_name = "FILE")]
    pub users: Option<String>,
    /// a Dovecot master user, who may open every mailbox
    #[argh(option, arg_name = "NAME")]
    pub master: Option<String>,
    /// the file whose first line is the password of the mailbox or the master user
    #[argh(option, arg_name = "FILE")]
    pub password_file: Option<String>,
    /// the PEM file with the server's certificate authority (default: the system's)
    #[argh(option, arg_name = "FILE")]
    pub ca: Option<String>,
    /// number of mailboxes to fetch at a time (default: 4)
    #[argh(option, arg_name = "NUMBER")]
    pub parallel: Option<String>,
    /// how the other server makes its unique ids
    #[argh(option, arg_name = "IDS")]
    pub uidl: Option<String>,
    /// create missing domains and mailboxes; set their passwords later with winpop changepwd
    #[argh(switch)]
    pub make: bool,
    /// show what would be imported and change nothing
    #[argh(switch)]
    pub dry_run: bool,
    /// a mail program's list of fetched messages: fetchmail's .fetchids, mpop's uidls, getmail's oldmail
    #[argh(option, arg_name = "FILE")]
    pub seen: Option<String>,
    /// compare with what is here and change nothing
    #[argh(switch)]
    pub verify: bool,
}

/// Exports mailboxes with their unique ids, or accounts, for another mail server.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "export",
    note = "Each mailbox becomes DIR/DOMAIN/USER, which appears complete or not at all; in USER, a slash is written %2F \
            and a percent sign %25, as import reads them. Existing files are not replaced, so an interrupted export \
            continues when you repeat it. The service may be running.",
    note = "The formats are maildir, with a dovecot-uidlist that gives Dovecot the same unique ids; mbox, with the ids in \
            X-UIDL fields; eml, with a list that import reads; and accounts, a passwd-file for Dovecot with SCRAM-SHA-256 \
            verifiers, so that passwords stay the same.",
    example = "pop3svc export maildir /srv/export",
    example = "pop3svc export eml /srv/export bob@example.com",
    example = "pop3svc export accounts /srv/passwd example.com"
)]
pub struct Export {
    /// maildir, mbox, eml or accounts
    #[argh(positional, arg_name = "FORMAT")]
    pub format: String,
    /// the directory to write to, or the file for accounts
    #[argh(positional, arg_name = "DIR")]
    pub target: String,
    /// one mailbox, or all of a domain (default: all)
    #[argh(positional, arg_name = "DOMAIN|USER@DOMAIN")]
    pub name: Option<String>,
}

/// Copies the whole mail store; the service may be running.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(subcommand, name = "backup", note = "The file appears complete or not at all.")]
pub struct Backup {
    /// the file to write
    #[argh(positional, arg_name = "FILE")]
    pub file: String,
}

/// Replaces the data file with a backup.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "restore",
    note = "Stop the service first. The backup is verified before anything changes. The old data file is kept next to the \
            new one, which gets its owner and mode."
)]
pub struct Restore {
    /// the backup
    #[argh(positional, arg_name = "FILE")]
    pub file: String,
}

/// Verifies every structure, checksum, counter and text of a mail store.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(subcommand, name = "check")]
pub struct Check {
    /// the data file (default: the one in the mail store directory)
    #[argh(positional, arg_name = "FILE")]
    pub file: Option<String>,
    /// repair what can be repaired and say what was lost
    #[argh(switch)]
    pub repair: bool,
}

/// Returns free space in the data file to the disk; the service may be running.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "compact",
    note = "Do not copy the data file with cp or the like while this runs: the copy would be unusable. Use pop3svc backup."
)]
pub struct Compact {}

/// Shows or changes the key that seals recoverable passwords.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "key",
    note = "APOP, CRAM-MD5 and NTLM (SPA) need the password itself. The data file holds it encrypted under a key kept \
            outside: winpop.key in the mail store directory, the file named by WINPOP_KEY_FILE, or winpop.key in systemd's \
            credentials directory.",
    example = "pop3svc key",
    example = "pop3svc key --rotate"
)]
pub struct Key {
    /// make a new key and seal all passwords under it; the old key is kept in winpop.key.old
    #[argh(switch)]
    pub rotate: bool,
    /// make the new key even if that gives up passwords whose key is missing
    #[argh(switch)]
    pub discard: bool,
}

/// Creates a symbolic link named winpop to this program.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(subcommand, name = "link", example = "pop3svc link /usr/local/bin")]
pub struct Link {
    /// the directory for the link (default: this program's directory)
    #[argh(positional, arg_name = "DIR")]
    pub dir: Option<String>,
}

/// Prints completions for a shell.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "completions",
    example = "pop3svc completions bash > /etc/bash_completion.d/pop3svc",
    example = "pop3svc completions zsh > /usr/local/share/zsh/site-functions/_pop3svc",
    example = "pop3svc completions fish > ~/.config/fish/conf.d/pop3svc.fish"
)]
pub struct Completions {
    /// bash, zsh or fish
    #[argh(positional, arg_name = "SHELL")]
    pub shell: String,
}

/// Prints a manual page.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(subcommand, name = "man", example = "pop3svc man winpop | man -l -")]
pub struct Man {
    /// winpop or pop3svc (default: pop3svc)
    #[argh(positional, arg_name = "NAME")]
    pub name: Option<String>,
}
