//! The server's life: open, listen, say so, serve, drain, close.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use seracdb_engine::{Engine, EngineError, Role};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::auth::{Auth, random};
use crate::config::ServerConfig;
use crate::flight::{self, Flight};
use crate::http::{self, Watched};
use crate::jwt::{Jwt, KeysError};
use crate::metrics::ServerMetrics;
use crate::queries::{self, Queries};
use crate::serving::Serving;
use crate::transport::{Door, Entrance, TlsError, WAYS_OUT};

/// The user of the first start.
const ROOT: &str = "root";

/// Where a generated password of `root` is, in the data directory.
const ROOT_PASSWORD_FILE: &str = "root-password";

/// How long closing the engine may take: a flush that has begun is finished.
const CLOSE: Duration = Duration::from_secs(30);

/// How often what clients left behind is looked through.
const SWEEP: Duration = Duration::from_secs(5);

/// How often it is asked whether logins still stand: what runs ends within a second of what it rests on.
const REVOKE: Duration = Duration::from_millis(500);

/// Why the server could not start or did not stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The engine's own text.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A port that cannot be had.
    #[error("cannot listen on {listen}: {source}. Is it in use? Set {setting} to another address")]
    Listen {
        /// The setting's path.
        setting: &'static str,
        /// Its value.
        listen: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Credentials would be there for everybody to read.
    #[error(
        "server.listen is {listen}, which other machines can reach, and there is no TLS: passwords and rows would travel in \
         the clear. Give {}",
        WAYS_OUT
    )]
    Exposed {
        /// The setting's value.
        listen: String,
    },
    /// Certificates that cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The generated password of `root` has no place.
    #[error("cannot write {}: {source}", path.display())]
    RootPassword {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// RocksDB could not write, or the object store has another owner.
    #[error(
        "the storage takes no more commits, because a write failed or the object store was lost to another server: the log \
         says which; mend its cause and start again"
    )]
    StorageFailed,
    /// The keys of JWTs cannot be read.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// Anything else of the system.
    #[error("cannot {what}: {source}")]
    System {
        /// What was to be done.
        what: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The gRPC transport.
    #[error("the Flight SQL port failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Runs a server until SIGTERM or SIGINT. `root_password`: for the user `root` of a new data directory; `None` makes
/// a random one.
pub fn serve(config: ServerConfig, root_password: Option<SecretString>) -> Result<(), ServeError> {
    let system = |what| move |source| ServeError::System { what, source };
    let rpc = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("rpc").build();
    let rpc = rpc.map_err(system("start the RPC runtime"))?;
    let queries = queries::runtime().map_err(system("start the query runtime"))?;
    let served = rpc.block_on(run(config, root_password, Queries::new(queries.handle().clone())));
    // What has not ended by now was given its time in the drain; the process ends with what still computes.
    rpc.shutdown_timeout(Duration::from_secs(1));
    queries.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn run(config: ServerConfig, root_password: Option<SecretString>, queries: Queries) -> Result<(), ServeError> {
    // Before opening, so that a signal during recovery is not lost.
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;
    let entrance = Entrance::check(&config.server).await?;
    let web = listen("http.listen", &config.http.listen).await?;
    tracing::info!(http = %address(&web)?, "starting");
    let watched = Arc::new(Watched::new(stop.clone()));
    let _web = AbortOnDropHandle::new(tokio::spawn(http::serve(web, Arc::clone(&watched))));
    let engine = queries.run(Engine::open(config.engine.clone())).await?;
    let failure = tokio::spawn(stop_on_failure(engine.clone(), stop.clone()));
    let served = start_and_drain(&config, &entrance, root_password, &queries, &engine, &watched, &stop).await;
    failure.abort();
    let served = if engine.has_storage_ended() { Err(ServeError::StorageFailed) } else { served };
    queries.stop();
    let closed = close(engine).await;
    served?;
    closed?;
    tracing::info!("stopped");
    Ok(())
}

/// Closes the engine, here and not on the query runtime, whose threads may all be busy. Not for ever: what was
/// acknowledged is durable already.
async fn close(engine: Arc<Engine>) -> Result<(), ServeError> {
    // A task, for a part of it blocks.
    let closing = tokio::spawn(async move { engine.close().await });
    match tokio::time::timeout(CLOSE, closing).await {
        Ok(Ok(closed)) => Ok(closed?),
        Ok(Err(_)) => Err(EngineError::panicked().into()),
        Err(_) => {
            tracing::warn!("closing takes more than {} s: left to the next start's recovery", CLOSE.as_secs());
            Ok(())
        }
    }
}

/// Everything between the engine's opening and its closing.
async fn start_and_drain(
    config: &ServerConfig,
    entrance: &Entrance,
    root_password: Option<SecretString>,
    queries: &Queries,
    engine: &Arc<Engine>,
    watched: &Watched,
    stop: &CancellationToken,
) -> Result<(), ServeError> {
    create_root(queries, engine, &config.engine.storage.data_dir, root_password).await?;
    let secret = random().map_err(|status| EngineError::internal(status.message()))?;
    let jwt = Jwt::open(&config.auth)?.map(Arc::new);
    if let Some(jwt) = &jwt {
        tokio::spawn(Arc::clone(jwt).watch());
    }
    let metrics = ServerMetrics::default();
    let auth = Auth::new(engine.clone(), queries.clone(), &config.auth, jwt, secret, metrics.clone());
    let flight = Arc::new(Flight::new(engine.clone(), queries.clone(), auth, &config.flight));

    let grpc = entrance.listen().await?;
    let grpc_address = address(&grpc)?;
    rotate(entrance)?;
    let door = Door::new(entrance, &config.limits);
    let serving = Serving::begin(grpc, door, flight.clone(), &config.limits, stop.clone());
    let sweeper = tokio::spawn(sweep(flight));

    let tls = entrance.certificates().is_some();
    watched.serves(engine.clone(), metrics.registry(engine));
    tracing::info!(grpc = %grpc_address, tls, "ready");
    let said = say_ready(entrance.scheme(), grpc_address);
    said.map_err(|source| ServeError::System { what: "write to stdout", source })?;
    let served = serving.drain(queries, Duration::from_secs(config.server.drain_seconds)).await;
    stop.cancel();
    sweeper.abort();
    served
}

fn stop_on_signal(stop: CancellationToken) -> Result<(), ServeError> {
    let system = |source| ServeError::System { what: "listen for signals", source };
    let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop: no new calls, waiting for those in flight");
        stop.cancel();
    });
    Ok(())
}

/// After a failed write, or without the lease on the object store, nothing may be acknowledged any more: the server ends.
async fn stop_on_failure(engine: Arc<Engine>, stop: CancellationToken) {
    engine.storage_ended().await;
    stop.cancel();
}

async fn listen(setting: &'static str, listen: &str) -> Result<TcpListener, ServeError> {
    let failed = |source| ServeError::Listen { setting, listen: listen.to_owned(), source };
    TcpListener::bind(listen).await.map_err(failed)
}

fn address(listener: &TcpListener) -> Result<SocketAddr, ServeError> {
    listener.local_addr().map_err(|source| ServeError::System { what: "read the port that was bound", source })
}

/// The one line on stdout: what scripts and tests wait for.
fn say_ready(scheme: &str, address: SocketAddr) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "seracdb ready on {scheme}://{address}")?;
    stdout.flush()
}

/// Takes over what the files of certificates become; ends with the process.
fn rotate(entrance: &Entrance) -> Result<(), ServeError> {
    if let Some(certificates) = entrance.certificates() {
        let watch = Arc::clone(certificates).watch();
        tokio::spawn(watch.map_err(|source| ServeError::System { what: "listen for signals", source })?);
    }
    Ok(())
}

async fn sweep(flight: Arc<Flight>) {
    tokio::join!(every(SWEEP, || flight.sweep(Instant::now())), every(REVOKE, || flight.end_revoked()));
}

/// Looks again and again, until it is dropped.
async fn every(period: Duration, look: impl Fn()) {
    let mut ticks = tokio::time::interval(period);
    loop {
        ticks.tick().await;
        look();
    }
}

/// Makes the user `root` of a new data directory.
async fn create_root(
    queries: &Queries,
    engine: &Arc<Engine>,
    data_dir: &Path,
    given: Option<SecretString>,
) -> Result<(), ServeError> {
    if engine.has_users() {
        return Ok(());
    }
    let password = match given {
        Some(password) => password,
        None => {
            let path = data_dir.join(ROOT_PASSWORD_FILE);
            let secret = random().map_err(|status| EngineError::internal(status.message()))?;
            let password = SecretString::from(BASE64_URL_SAFE_NO_PAD.encode(secret));
            let failed = |source| ServeError::RootPassword { path: path.clone(), source };
            write_secret(&path, password.expose_secret()).map_err(failed)?;
            tracing::info!(path = %path.display(), "user '{ROOT}' gets a random password: read it in this file");
            password
        }
    };
    let engine = engine.clone();
    let created =
        queries.run(async move { engine.create_user(ROOT, password.expose_secret(), Role::System).await }).await;
    Ok(created?)
}

/// A file only this user may read. It is durable before the user it belongs to is.
fn write_secret(path: &Path, secret: &str) -> std::io::Result<()> {
    // From a first start that ended between the file and the user: the password in it is nobody's.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{secret}")?;
    file.sync_all()
}

/// Panics go to the log, with the place they come from, and not as free text to stderr.
pub(crate) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("no text");
        if flight::is_reading() {
            tracing::debug!(place, "what a client sent cannot be read: {text}");
            return;
        }
        tracing::error!(place, "panic: {text}");
    }));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_secret_is_for_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(ROOT_PASSWORD_FILE);
        std::fs::write(&path, "left over and much longer than the new one").unwrap();
        write_secret(&path, "geheim").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "geheim\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
