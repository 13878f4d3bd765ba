//! A mail root with an empty store in a temporary directory, for tests inside the library.

use crate::mailroot::{self, Environment, MailRoot};
use crate::store::Store;
use std::fs;
use std::path::PathBuf;

pub struct Bench {
    /// Removed when the bench is dropped.
    pub home: PathBuf,
    pub mailroot: MailRoot,
    pub store: Store,
}

impl Bench {
    /// `name` is the test's own.
    pub fn new(name: &str) -> Self {
        let home = std::env::temp_dir().join(format!("pop3svc-bench-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home).unwrap();
        let environment =
            Environment { user: 1000, home: Some(home.clone().into()), ..Environment::default() };
        let mailroot = MailRoot::find(None, &environment).unwrap();
        mailroot::create(&mailroot.dir).unwrap();
        let store = Store::create(&mailroot.data_file()).unwrap();
        Self { home, mailroot, store }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.home);
    }
}
