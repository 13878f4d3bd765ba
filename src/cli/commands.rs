//! The commands of `pop3svc` beside `winpop`: what each takes, and its help.

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

/// Makes a mail store with a first mailbox and message, and serves it.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "quickstart",
    note = "Prints the password of the mailbox, the settings for a client, and a curl line that fetches the \
            first message. Only programs of this machine can connect, unless the setting listen or --listen says \
            otherwise. Without the right to use port 110, unprivileged ports are used for this run."
)]
pub struct Quickstart {
    /// IP addresses to listen on in this run; * means all
    #[argh(option, arg_name = "ADDRESSES")]
    pub listen: Option<String>,
    /// the mailbox to make (default: user@example.com)
    #[argh(positional, arg_name = "USER@DOMAIN")]
    pub address: Option<String>,
}

/// Runs the service in the foreground.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "serve",
    note = "SIGTERM and SIGINT end it: no new connections are taken, and sessions get the time of the setting \
            shutdowngrace to end.",
    note = "Before it serves, it makes the domain that WINPOP_DOMAIN names, and the mailbox that WINPOP_USER names with \
            the password in WINPOP_PASSWORD_FILE, unless they are there."
)]
pub struct Serve {}

/// Says whether the service answers: one line, and the exit code 0 or 1.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "health",
    note = "The service is asked over its control socket, which takes root or the user of the service. Anyone may \
            name its POP3 address instead; its greeting is waited for. A service that does not answer within five seconds \
            is not healthy.",
    example = "pop3svc health",
    example = "pop3svc health 127.0.0.1:110"
)]
pub struct Health {
    /// an address and port on which it answers POP3
    #[argh(positional, arg_name = "ADDRESS")]
    pub address: Option<String>,
}

/// Delivers the message on standard input.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "deliver",
    note = "The exit code is one of sysexits.h: 67 no such mailbox, 73 over quota, 65 malformed, 69 and 75 try \
            again later. Invoked by the name sendmail, the program takes the usual switches of sendmail.",
    example = "pop3svc deliver -f alice@example.org bob@example.com < message.eml"
)]
pub struct Deliver {
    /// the sender of the envelope
    #[argh(option, short = 'f', arg_name = "SENDER")]
    pub from: Option<String>,
    /// take recipients from the To, Cc and Bcc fields too
    #[argh(switch, short = 't', hidden_help)]
    pub to_header: bool,
    /// deliver to those who can take the message although others cannot
    #[argh(switch)]
    pub each: bool,
    /// the mailboxes to deliver to
    #[argh(positional, arg_name = "USER@DOMAIN")]
    pub recipients: Vec<String>,
}

/// Takes in mailboxes of another mail server with their unique ids.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "import",
    note = "The formats are maildir (of Dovecot, Courier and others), mbox, eml (a directory of .eml files), list (lines of \
            FILE, a tab and the unique id) and windows (the mail root of the Windows service).",
    note = "For the mailboxes of many users, the path has the words domain and user in it, each in braces. The path of \
            windows may be the whole mail root, the directory of a domain, or that of a mailbox.",
    note = "Messages keep their texts, their order and, where that is known, the unique ids that mail programs know them \
            by. Given again, the command goes on, and takes in nothing twice. The service may run.",
    note = "--uidl says how the other server made its ids, as pop3_uidl_format of Dovecot does: of %u and %v (UID and \
            UIDVALIDITY; %08Xu in hexadecimal), %f and %b (file name, and without its extension), %g (GUID), %Mf (MD5). Where \
            that is not known, --seen names what a mail program of the user has noted, and the ids that are found there are \
            taken.",
    note = "After the import, the same command with --verify compares ids, sizes and order before and now, and says how many \
            messages mail programs that leave their mail on the server fetch again: exit code 1 if any. It changes nothing.",
    note = "--from fetches from a running POP3 server: pop3s://HOST begins with TLS, pop3://HOST needs STLS, pop3+clear://HOST has \
            neither. Where login names there are not whole addresses, their form stands before the host, of the words user and \
            domain in braces and an @ behind it. Nothing is deleted there. Nobody is let into a mailbox here before all of its \
            mail is.",
    note = "The list of --users has a line for each mailbox: USER@DOMAIN, a tab and the password; and another tab and the login \
            name, where that is another one. With --master it has no passwords.",
    example = "pop3svc import --from pop3s://old.example.com --users users.txt --make",
    example = "pop3svc import maildir /home/bob/Maildir bob@example.com --dry-run",
    example = "pop3svc import windows /srv/mailbox --make --uidl %b",
    example = "pop3svc import mbox /var/mail/bob bob@example.com",
    example = "pop3svc import windows /srv/mailbox bob@example.com --seen .fetchids"
)]
pub struct Import {
    /// how the mail lies there (maildir, mbox, eml, list or windows), the directory or file, and the mailbox that the
    /// mail comes into; with --from only the mailbox
    #[argh(positional, arg_name = "FORMAT PATH USER@DOMAIN")]
    pub words: Vec<String>,
    /// fetch the mail from this POP3 server
    #[argh(option, arg_name = "URL")]
    pub from: Option<String>,
    /// the list of mailboxes to fetch, with their passwords
    #[argh(option, arg_name = "FILE")]
    pub users: Option<String>,
    /// the master user of a Dovecot, who may open every mailbox
    #[argh(option, arg_name = "NAME")]
    pub master: Option<String>,
    /// the file whose first line is the password of the mailbox or of the master user
    #[argh(option, arg_name = "FILE")]
    pub password_file: Option<String>,
    /// PEM file with the authority that vouches for the server (default: the system's)
    #[argh(option, arg_name = "FILE")]
    pub ca: Option<String>,
    /// mailboxes to fetch at a time (default: 4)
    #[argh(option, arg_name = "NUMBER")]
    pub parallel: Option<String>,
    /// how the other server made its unique ids
    #[argh(option, arg_name = "IDS")]
    pub uidl: Option<String>,
    /// make domains and mailboxes that are not there; they have no password until winpop changepwd
    #[argh(switch)]
    pub make: bool,
    /// only say what would be taken in
    #[argh(switch)]
    pub dry_run: bool,
    /// what a mail program has noted as fetched: .fetchids of fetchmail, uidls of mpop, oldmail of getmail
    #[argh(option, arg_name = "FILE")]
    pub seen: Option<String>,
    /// compare with what is here, and change nothing
    #[argh(switch)]
    pub verify: bool,
}

/// Writes mailboxes as another mail server reads them, with their unique ids, or accounts.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "export",
    note = "Each mailbox becomes DIR/DOMAIN/USER, which appears whole or not at all; nothing that is there is replaced, so \
            an export that was cut short goes on where it is given again. The service may run.",
    note = "The formats are maildir, with a dovecot-uidlist that gives a Dovecot the same unique ids; mbox, with the ids in \
            X-UIDL fields; eml, with a list that import reads; and accounts: a passwd-file for Dovecot, with verifiers of \
            SCRAM-SHA-256, so that passwords stay what they are.",
    example = "pop3svc export maildir /srv/export",
    example = "pop3svc export eml /srv/export bob@example.com",
    example = "pop3svc export accounts /srv/passwd example.com"
)]
pub struct Export {
    /// what to write: maildir, mbox, eml or accounts
    #[argh(positional, arg_name = "FORMAT")]
    pub format: String,
    /// the directory to write to; of accounts, the file
    #[argh(positional, arg_name = "DIR")]
    pub target: String,
    /// one mailbox, or those of a domain (default: all)
    #[argh(positional, arg_name = "DOMAIN|USER@DOMAIN")]
    pub name: Option<String>,
}

/// Copies the whole mail store, also while it is served.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(subcommand, name = "backup", note = "The file appears whole or not at all.")]
pub struct Backup {
    /// the file to make
    #[argh(positional, arg_name = "FILE")]
    pub file: String,
}

/// Puts a backup in the place of the data file.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "restore",
    note = "The service must be stopped. The backup is verified before anything changes. The data file from before is kept \
            beside the new one, which gets its owner and mode."
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
    /// the data file (default: that of the mail store directory)
    #[argh(positional, arg_name = "FILE")]
    pub file: Option<String>,
    /// repair what can be repaired, and say what was lost
    #[argh(switch)]
    pub repair: bool,
}

/// Gives free space in the data file back to the disk, also while the store is served.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "compact",
    note = "Copies of the data file that are being made meanwhile, by cp and the like, are not good; a backup by pop3svc is."
)]
pub struct Compact {}

/// Shows or changes the key that seals recoverable passwords.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "key",
    note = "APOP, CRAM-MD5 and NTLM (SPA) need the password itself. It lies in the data file, sealed under a key that \
            lies outside: winpop.key in the mail store directory, or the file that WINPOP_KEY_FILE names, or \
            winpop.key in the credentials directory of systemd.",
    example = "pop3svc key",
    example = "pop3svc key --rotate"
)]
pub struct Key {
    /// make a new key and seal all passwords under it; the old key stays in winpop.key.old
    #[argh(switch)]
    pub rotate: bool,
    /// make the new key even where that gives up passwords, because the key that they are sealed under is not there
    #[argh(switch)]
    pub discard: bool,
}

/// Makes the name winpop for this program.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(subcommand, name = "link", example = "pop3svc link /usr/local/bin")]
pub struct Link {
    /// the directory for the symbolic link (default: beside this program)
    #[argh(positional, arg_name = "DIR")]
    pub dir: Option<String>,
}

/// Prints the completions for a shell.
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

/// Prints a page of the manual.
#[derive(Debug, PartialEq, Eq, FromArgs, ArgsInfo)]
#[argh(subcommand, name = "man", example = "pop3svc man winpop | man -l -")]
pub struct Man {
    /// winpop or pop3svc (default: pop3svc)
    #[argh(positional, arg_name = "NAME")]
    pub name: Option<String>,
}
