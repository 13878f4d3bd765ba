//! Finds the mail store: the directory with the data file and the control socket.
//!
//! In order of precedence: `--mailroot`, `WINPOP_MAILROOT`, the pointer file that `set mailroot` writes, the default.
//!
//! A machine has one mail store, named by `/etc/winpop/mailroot`, by default `/var/lib/winpop`. Root uses it, and so
//! does the owner of that directory, the service's user, so both always mean the same store. Every other user has a
//! private store, with its pointer in `winpop/mailroot` of their configuration.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::replace::Replacement;

/// Longest mail store path in characters, as in the original.
pub const PATH_CHARACTERS_MAX: usize = 260;

const POINTER_OF_MACHINE: &str = "/etc/winpop/mailroot";
const DEFAULT_OF_MACHINE: &str = "/var/lib/winpop";
const ROOT: u32 = 0;
const DATA_FILE: &str = "winpop.db";
pub const KEY_FILE: &str = "winpop.key";
const SOCKET: &str = "winpop.sock";
/// Write permission for anyone but the owner.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// The parts of the environment that determine the mail store. An empty variable counts as unset.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// The user of the process.
    pub user: u32,
    /// Pointer file and default directory of the machine's store; empty for none.
    pub machine: (PathBuf, PathBuf),
    pub winpop_mailroot: Option<OsString>,
    pub xdg_config_home: Option<OsString>,
    pub xdg_data_home: Option<OsString>,
    pub home: Option<OsString>,
}

/// The mail store directory, and what determined it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailRoot {
    /// Absolute.
    pub dir: PathBuf,
    pub named_by: NamedBy,
    /// The pointer file that `set mailroot` writes.
    pub pointer: PathBuf,
    /// The default directory.
    pub default_dir: PathBuf,
    /// The machine's store, if this one is private and the machine has one.
    pub of_machine: Option<PathBuf>,
}

/// What determined the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedBy {
    CommandLine,
    Variable,
    Pointer,
    Default,
}

/// Why the mail store cannot be determined, or a directory cannot be it: what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    pub why: String,
    pub hint: &'static str,
}

impl Environment {
    pub fn of_this_process() -> Self {
        Self {
            user: rustix::process::geteuid().as_raw(),
            machine: (POINTER_OF_MACHINE.into(), DEFAULT_OF_MACHINE.into()),
            winpop_mailroot: std::env::var_os("WINPOP_MAILROOT"),
            xdg_config_home: std::env::var_os("XDG_CONFIG_HOME"),
            xdg_data_home: std::env::var_os("XDG_DATA_HOME"),
            home: std::env::var_os("HOME"),
        }
    }

    /// Pointer file and default directory for this user.
    fn places(&self) -> Result<(PathBuf, PathBuf), Unusable> {
        if self.has_the_store_of_the_machine() {
            return Ok(self.machine.clone());
        }
        let pointer = self.base(&self.xdg_config_home, ".config")?.join("winpop/mailroot");
        let default_dir = self.base(&self.xdg_data_home, ".local/share")?.join("winpop");
        Ok((pointer, default_dir))
    }

    fn has_the_store_of_the_machine(&self) -> bool {
        self.user == ROOT
            || fs::metadata(self.dir_of_machine()).is_ok_and(|dir| dir.is_dir() && dir.uid() == self.user)
    }

    /// The directory of the machine's store, whether it exists or not.
    fn dir_of_machine(&self) -> PathBuf {
        let (pointer, default_dir) = &self.machine;
        pointed_to(pointer).ok().flatten().unwrap_or_else(|| default_dir.clone())
    }

    /// An XDG base directory; the specification says to ignore relative ones.
    fn base(&self, variable: &Option<OsString>, below_home: &str) -> Result<PathBuf, Unusable> {
        let absolute =
            |value: &Option<OsString>| value.as_ref().map(PathBuf::from).filter(|p| p.is_absolute());
        absolute(variable).or_else(|| Some(absolute(&self.home)?.join(below_home))).ok_or(Unusable {
            why: "neither HOME nor the XDG directories are set, so there is no default mail store directory"
                .to_owned(),
            hint: "Name the directory: --mailroot DIR or WINPOP_MAILROOT",
        })
    }
}

impl MailRoot {
    /// Finds the directory, which need not exist. `given` is the value of `--mailroot`.
    pub fn find(given: Option<&Path>, environment: &Environment) -> Result<Self, Unusable> {
        let variable = environment.winpop_mailroot.as_ref().filter(|value| !value.is_empty());
        if let Some(dir) = given.or(variable.map(Path::new)) {
            let named_by = if given.is_some() { NamedBy::CommandLine } else { NamedBy::Variable };
            // A user without a home uses the machine's store.
            let (pointer, default_dir) = environment.places().unwrap_or_else(|_| environment.machine.clone());
            return Ok(Self { dir: absolute(dir)?, named_by, pointer, default_dir, of_machine: None });
        }
        let (pointer, default_dir) = environment.places()?;
        let (dir, named_by) = match pointed_to(&pointer)? {
            Some(dir) => (dir, NamedBy::Pointer),
            None => (default_dir.clone(), NamedBy::Default),
        };
        let of_machine = environment.dir_of_machine();
        let is_private = !environment.has_the_store_of_the_machine() && of_machine.is_dir();
        Ok(Self { dir, named_by, pointer, default_dir, of_machine: is_private.then_some(of_machine) })
    }

    pub fn data_file(&self) -> PathBuf {
        data_file(&self.dir)
    }

    /// The default path of the key file.
    pub fn key_file(&self) -> PathBuf {
        self.dir.join(KEY_FILE)
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join(SOCKET)
    }

    /// Whether `set mailroot` applies to the machine's store rather than a private one.
    pub fn is_of_machine(&self) -> bool {
        self.pointer == Path::new(POINTER_OF_MACHINE)
    }

    /// The directory the next start will use, as far as this process can tell.
    pub fn at_next_start(&self) -> PathBuf {
        match self.named_by {
            NamedBy::CommandLine | NamedBy::Variable => self.dir.clone(),
            NamedBy::Pointer | NamedBy::Default => {
                pointed_to(&self.pointer).ok().flatten().unwrap_or_else(|| self.dir.clone())
            }
        }
    }

    /// A draft of the pointer file that names this directory.
    pub fn pointer_to(&self, dir: &Path) -> io::Result<Replacement> {
        let folder = self.pointer.parent().expect("the pointer file lies in a directory");
        if !folder.exists() {
            fs::create_dir_all(folder)?;
            // Whatever the umask: the service's user reads the pointer too.
            fs::set_permissions(folder, Permissions::from_mode(0o755))?;
        }
        let pointer = Replacement::begin(&self.pointer, 0o644)?;
        pointer.file().write_all(dir.as_os_str().as_encoded_bytes())?;
        pointer.file().write_all(b"\n")?;
        Ok(pointer)
    }
}

pub fn data_file(dir: &Path) -> PathBuf {
    dir.join(DATA_FILE)
}

/// The files that move with a mail store, the data file first.
pub fn files(dir: &Path) -> [PathBuf; 2] {
    [dir.join(DATA_FILE), dir.join(KEY_FILE)]
}

/// Creates the directory, accessible to its owner only, if missing.
pub fn create(dir: &Path) -> io::Result<()> {
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        made => made,
    }
}

/// Checks that only its owner and root can replace files in the directory. A missing one is fine, since we create it
/// that way.
pub fn check(dir: &Path) -> Result<(), Unusable> {
    let Ok(metadata) = fs::metadata(dir) else { return Ok(()) };
    let mode = metadata.mode();
    if !metadata.is_dir() || mode & WRITABLE_BY_OTHERS == 0 {
        return Ok(());
    }
    let others = if mode & 0o002 != 0 { "every user" } else { "the users of its group" };
    Err(Unusable {
        why: format!("{others} may write to {} and could replace the mail store", dir.display()),
        hint: "Restrict it to its owner with chmod 700, or use a directory below it",
    })
}

/// Resolves a path typed for `set mailroot` against the current directory.
pub fn absolute(typed: &Path) -> Result<PathBuf, Unusable> {
    let text = typed.to_string_lossy();
    let unusable = |why: &str, hint| Err(Unusable { why: format!("\"{text}\" {why}"), hint });
    if text.is_empty() {
        return unusable("is not a directory", "Name a directory, such as /srv/mail");
    }
    if text.starts_with("\\\\") || text.starts_with("//") {
        return unusable("is a UNC path", "Mount the share and name the directory where it is mounted");
    }
    if text.as_bytes().get(1) == Some(&b':') && text.contains('\\') {
        return unusable("is a Windows path", "Name a directory on this machine, such as /srv/mail");
    }
    if text.chars().any(char::is_control) {
        return unusable("contains control characters", "Name a directory, such as /srv/mail");
    }
    let Ok(path) = std::path::absolute(typed) else {
        return unusable(
            "cannot be resolved from the current directory",
            "Give an absolute path, such as /srv/mail",
        );
    };
    if path.to_string_lossy().chars().count() > PATH_CHARACTERS_MAX {
        return unusable("is longer than 260 characters", "Name a directory with a shorter path");
    }
    if fs::metadata(&path).is_ok_and(|there| !there.is_dir()) {
        return unusable("is not a directory", "Name a directory, such as /srv/mail");
    }
    Ok(path)
}

fn pointed_to(pointer: &Path) -> Result<Option<PathBuf>, Unusable> {
    let hint = "Fix or remove it, or name the directory: --mailroot DIR";
    let text = match fs::read(pointer) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Unusable { why: format!("{} cannot be read: {error}", pointer.display()), hint });
        }
    };
    let line = text.strip_suffix(b"\n").unwrap_or(&text);
    let dir = PathBuf::from(OsString::from_vec(line.to_vec()));
    if !dir.is_absolute() || line.contains(&b'\n') {
        return Err(Unusable { why: format!("{} does not name a directory", pointer.display()), hint });
    }
    Ok(Some(dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::scratch;

    /// A user with an empty home.
    fn user(home: &Path) -> Environment {
        Environment { user: 1000, home: Some(home.into()), ..Environment::default() }
    }

    #[test]
    fn the_command_line_overrides_the_variable_which_overrides_the_pointer() {
        let scratch = scratch::directory();
        let home = scratch.path();
        let mut environment = user(home);
        let found = MailRoot::find(None, &environment).unwrap();
        assert_eq!((found.dir, found.named_by), (home.join(".local/share/winpop"), NamedBy::Default));

        let found = MailRoot::find(None, &environment).unwrap();
        found.pointer_to(Path::new("/srv/mail")).unwrap().finish().unwrap();
        assert_eq!(fs::read_to_string(home.join(".config/winpop/mailroot")).unwrap(), "/srv/mail\n");
        assert_eq!(found.at_next_start(), Path::new("/srv/mail"));
        let found = MailRoot::find(None, &environment).unwrap();
        assert_eq!((found.dir.to_str(), found.named_by), (Some("/srv/mail"), NamedBy::Pointer));

        environment.winpop_mailroot = Some("/srv/other".into());
        let found = MailRoot::find(None, &environment).unwrap();
        assert_eq!((found.dir.to_str(), found.named_by), (Some("/srv/other"), NamedBy::Variable));
        assert_eq!(found.at_next_start(), Path::new("/srv/other"));

        let found = MailRoot::find(Some(Path::new("/srv/third")), &environment).unwrap();
        assert_eq!((found.dir.to_str(), found.named_by), (Some("/srv/third"), NamedBy::CommandLine));

        environment.winpop_mailroot = Some("".into());
        assert_eq!(MailRoot::find(None, &environment).unwrap().named_by, NamedBy::Pointer);
    }

    #[test]
    fn a_users_places_are_those_of_xdg() {
        let mut environment = user(Path::new("/home/bob"));
        environment.xdg_config_home = Some("/cfg".into());
        environment.xdg_data_home = Some("/data".into());
        assert_eq!(environment.places(), Ok(("/cfg/winpop/mailroot".into(), "/data/winpop".into())));
        environment.xdg_data_home = Some("relative".into());
        assert_eq!(environment.places().unwrap().1, Path::new("/home/bob/.local/share/winpop"));
    }

    /// Root and the service's user must mean the same store.
    #[test]
    fn root_and_the_owner_of_the_machines_store_mean_the_same_one() {
        let scratch = scratch::directory();
        let home = scratch.path();
        let owner = fs::metadata(home).unwrap().uid();
        let (pointer, default_dir, other) =
            (home.join("etc/mailroot"), home.join("default"), home.join("other"));
        [&default_dir, &other].iter().for_each(|dir| fs::create_dir(dir).unwrap());
        let machine = (pointer.clone(), default_dir.clone());
        let found = |user: u32| {
            let environment = Environment {
                user,
                machine: machine.clone(),
                home: Some(home.into()),
                ..Environment::default()
            };
            MailRoot::find(None, &environment).unwrap()
        };
        for user in [ROOT, owner] {
            assert_eq!((found(user).dir, found(user).of_machine), (default_dir.clone(), None));
        }
        found(ROOT).pointer_to(&other).unwrap().finish().unwrap();
        for user in [ROOT, owner] {
            assert_eq!((found(user).dir, found(user).pointer), (other.clone(), pointer.clone()));
        }
        let private = found(owner + 1000);
        assert_eq!(private.dir, home.join(".local/share/winpop"));
        assert_eq!(private.of_machine, Some(other.clone()));
        fs::remove_dir(&other).unwrap();
        assert_eq!(found(owner + 1000).of_machine, None);
    }

    #[test]
    fn without_a_home_the_directory_must_be_named() {
        let nobody = Environment { user: 1000, ..Environment::default() };
        assert!(MailRoot::find(None, &nobody).is_err());
        assert_eq!(
            MailRoot::find(Some(Path::new("/srv/mail")), &nobody).unwrap().dir,
            Path::new("/srv/mail")
        );
    }

    #[test]
    fn a_pointer_file_that_names_no_directory_is_reported_and_not_ignored() {
        let scratch = scratch::directory();
        let home = scratch.path();
        fs::create_dir_all(home.join(".config/winpop")).unwrap();
        for text in ["", "srv/mail\n", "/srv\n/mail\n"] {
            fs::write(home.join(".config/winpop/mailroot"), text).unwrap();
            assert!(MailRoot::find(None, &user(home)).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_directory_is_local_and_its_path_has_260_characters_at_most() {
        let longest = format!("/{}", "a".repeat(259));
        for good in ["/srv/mail", "relative", "./-x", &longest] {
            assert!(absolute(Path::new(good)).unwrap().is_absolute(), "{good}");
        }
        let too_long = format!("/{}", "ä".repeat(260));
        for bad in
            ["", "\\\\server\\share", "//server/share", "C:\\mailstore", "/a\nb", "/dev/null", &too_long]
        {
            assert!(absolute(Path::new(bad)).is_err(), "{bad}");
        }
        let unc = absolute(Path::new("\\\\server\\share")).unwrap_err();
        assert_eq!(unc.hint, "Mount the share and name the directory where it is mounted");
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let scratch = scratch::directory();
        let home = scratch.path();
        for (mode, who) in [(0o777, "every user"), (0o1777, "every user"), (0o770, "the users of its group")]
        {
            fs::set_permissions(home, fs::Permissions::from_mode(mode)).unwrap();
            let unusable = check(home).unwrap_err();
            assert!(
                unusable.why.starts_with(&format!("{who} may write to {}", home.display())),
                "{unusable:?}"
            );
        }
        for mode in [0o700, 0o755, 0o750] {
            fs::set_permissions(home, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(check(home), Ok(()));
        }
        assert_eq!(check(&home.join("absent")), Ok(()));
    }

    #[test]
    fn the_directory_is_created_for_its_owner_only() {
        let scratch = scratch::directory();
        let home = scratch.path();
        create(&home.join("a/b")).unwrap();
        let mode = |dir: &str| fs::metadata(home.join(dir)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("a/b"), 0o700);
        create(&home.join("a/b")).unwrap();
        fs::write(home.join("file"), "").unwrap();
        assert!(create(&home.join("file")).is_err());
    }
}
