//! A real server for tests and benchmarks: the real binary, real files, a free port.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use seracdb_client::Client;
use tempfile::TempDir;

/// The root password of every test server.
pub const PASSWORD: &str = "root-password-of-the-tests";

/// A running server. It is killed when this is dropped.
pub struct TestServer {
    process: Child,
    uri: String,
    data_dir: DataDir,
    settings: Vec<(String, String)>,
}

enum DataDir {
    Own(TempDir),
    Given(PathBuf),
}

impl DataDir {
    fn path(&self) -> &Path {
        match self {
            Self::Own(dir) => dir.path(),
            Self::Given(path) => path,
        }
    }
}

impl TestServer {
    /// Starts a server on a new data directory.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with settings by environment, such as `("SERACDB_STORAGE__DURABILITY", "relaxed")`.
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        Self::spawn(DataDir::Own(dir), settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    /// Starts a server on a data directory of the caller's.
    pub fn start_on(path: &Path) -> Self {
        Self::spawn(DataDir::Given(path.to_owned()), vec![])
    }

    /// Ends the server without a chance to finish anything, and starts it again on the same data directory.
    pub fn kill_and_restart(mut self) -> Self {
        self.process.kill().expect("the server can be killed");
        self.again()
    }

    /// Ends the server with SIGTERM, checks that it exits with 0, and starts it again on the same data directory.
    pub fn stop_and_restart(mut self) -> Self {
        let id = self.process.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().expect("kill runs");
        assert!(sent.success());
        let status = self.process.wait().expect("the server ends");
        assert!(status.success(), "after SIGTERM: {status}");
        self.again()
    }

    fn again(mut self) -> Self {
        self.process.wait().expect("the server ends");
        let settings = std::mem::take(&mut self.settings);
        let data_dir = std::mem::replace(&mut self.data_dir, DataDir::Given(PathBuf::new()));
        Self::spawn(data_dir, settings)
    }

    /// Where it listens: `grpc://127.0.0.1:PORT`.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }

    /// A client of root's.
    pub async fn client(&self) -> Client {
        self.client_of("root", PASSWORD).await
    }

    /// A client of this user's.
    pub async fn client_of(&self, user: &str, password: &str) -> Client {
        Client::connect(&self.uri, user, password).await.expect("the server lets the user in")
    }

    fn spawn(data_dir: DataDir, settings: Vec<(String, String)>) -> Self {
        let mut process = Command::new(binary())
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir.path())
            .env("SERACDB_HTTP__LISTEN", "127.0.0.1:0")
            .env("SERACDB_ROOT_PASSWORD", PASSWORD)
            .env("SERACDB_LOG__FILTER", "warn")
            .envs(settings.iter().map(|(k, v)| (k, v)))
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut lines = BufReader::new(process.stdout.take().expect("its output is piped")).lines();
        let uri = loop {
            let line = lines.next().expect("the server ended before it was ready").expect("its output is text");
            if let Some(uri) = line.strip_prefix("seracdb ready on ") {
                break uri.to_owned();
            }
        };
        Self { process, uri, data_dir, settings }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The binary to test: `SERACDB_BIN`, else the one beside the test's own.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("SERACDB_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a test knows its own path");
    let folder = test.ancestors().nth(2).expect("tests lie in target/PROFILE/deps");
    let beside = [folder.join("seracdb"), test.with_file_name("seracdb")];
    beside.into_iter().find(|path| path.exists()).expect("no seracdb binary: run `cargo build -p seracdb` first")
}
