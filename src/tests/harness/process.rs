//! Child processes: run to their end, or watched while they serve.

use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::PATIENCE;

/// A program that runs longer is considered hung.
const RUN_MAX: Duration = Duration::from_secs(300);

/// Runs a command to its end.
pub fn finish(command: &mut Command, input: &[u8]) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the program can be run");
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_vec();
    // Concurrent with the reading below: a program that prints before it has read everything must not block both.
    let writing = thread::spawn(move || {
        // A program that reads nothing may have ended already.
        let _ = stdin.write_all(&input);
    });
    let stdout = read_to_end(child.stdout.take().expect("it is piped"));
    let stderr = read_to_end(child.stderr.take().expect("it is piped"));
    let mut within_limit = |read: Receiver<Vec<u8>>| {
        read.recv_timeout(RUN_MAX).unwrap_or_else(|_| {
            let _ = child.kill();
            panic!("it does not end: {command:?}")
        })
    };
    let (stdout, stderr) = (within_limit(stdout), within_limit(stderr));
    writing.join().expect("writing does not panic");
    Output { status: child.wait().expect("it is our child"), stdout, stderr }
}

fn read_to_end(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, read) = mpsc::channel();
    thread::spawn(move || {
        let mut octets = Vec::new();
        pipe.read_to_end(&mut octets).expect("a pipe can be read");
        // The receiver may have given up.
        let _ = sender.send(octets);
    });
    read
}

/// A running process and what it has printed; killed when dropped.
pub struct Process {
    pub child: Child,
    told: Arc<Told>,
    reader: Option<JoinHandle<()>>,
}

/// Standard output and standard error.
#[derive(Default)]
struct Told {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    text: String,
    ended: bool,
}

impl Process {
    /// Starts the command without waiting for anything.
    pub fn spawn(command: &mut Command) -> Self {
        let (output, input) = io::pipe().expect("a pipe can be made");
        let errors = input.try_clone().expect("a pipe can be shared");
        let child = command.stdin(Stdio::null()).stdout(input).stderr(errors).spawn();
        // Its output ends only when nobody else holds the writing end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = child.expect("the program can be run");
        let told = Arc::new(Told::default());
        let reader = thread::spawn({
            let told = told.clone();
            move || told.read(output)
        });
        Self { child, told, reader: Some(reader) }
    }

    pub fn told(&self) -> String {
        self.told.state.lock().unwrap().text.clone()
    }

    /// Waits until it has printed this; false if it ends instead.
    pub fn wait_for(&self, words: &str) -> bool {
        let is_told = |state: &State| state.ended || state.text.contains(words);
        self.told.wait_until(&format!("\"{words}\""), is_told).contains(words)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child that was not waited for");
    }

    /// Waits for its end. Returns its exit status and everything it printed.
    #[track_caller]
    pub fn wait(mut self) -> (ExitStatus, String) {
        let text = self.told.wait_until("its end", |state| state.ended);
        self.reader.take().expect("it is joined once").join().expect("reading does not panic");
        (self.child.wait().expect("it is our child"), text)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Told {
    fn read(&self, output: impl Read) {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            self.state.lock().unwrap().text += &String::from_utf8_lossy(&line);
            self.changed.notify_all();
            line.clear();
        }
        self.state.lock().unwrap().ended = true;
        self.changed.notify_all();
    }

    #[track_caller]
    fn wait_until(&self, what: &str, is_so: impl Fn(&State) -> bool) -> String {
        let state = self.state.lock().unwrap();
        let (state, waited) =
            self.changed.wait_timeout_while(state, PATIENCE, |state| !is_so(state)).unwrap();
        assert!(!waited.timed_out(), "waited in vain for {what}: {}", state.text);
        state.text.clone()
    }
}
