//! A mail root with an empty store in a temporary directory, for tests inside the library.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::mailroot::{self, Environment, MailRoot};
use crate::store::Store;
use crate::tests::scratch;

pub struct Bench {
    pub home: PathBuf,
    pub mailroot: MailRoot,
    pub store: Store,
    /// Contains `home`; removed when dropped.
    _scratch: TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let scratch = scratch::directory();
        let home = scratch.path().to_owned();
        let environment =
            Environment { user: 1000, home: Some(home.clone().into()), ..Environment::default() };
        let mailroot = MailRoot::find(None, &environment).unwrap();
        mailroot::create(&mailroot.dir).unwrap();
        let store = Store::create(&mailroot.data_file()).unwrap();
        Self { home, mailroot, store, _scratch: scratch }
    }
}
