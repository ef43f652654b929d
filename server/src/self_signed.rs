//! `seracdb tls self-signed`: a CA, and certificates of it for a server and a client, for trying out TLS.
//!
//! The CA's key is dropped: nobody can make further certificates that its clients would trust.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use seracdb_engine::{Clock, SystemClock};

/// Names that a server has on its own machine.
const HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The command's arguments.
#[derive(Args)]
pub(crate) struct SelfSigned {
    /// Where the files go.
    #[arg(long, value_name = "DIR", default_value = "./seracdb-tls")]
    dir: PathBuf,
    /// Names and addresses that clients use for the server, besides localhost, 127.0.0.1 and ::1.
    #[arg(long = "host", value_name = "NAME", num_args = 1..)]
    hosts: Vec<String>,
    /// Days for which the certificates are valid.
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// Replaces files of an earlier time.
    #[arg(long)]
    force: bool,
}

/// What the certificates are to be.
pub(crate) struct Wanted {
    pub(crate) hosts: Vec<String>,
    pub(crate) days: u32,
    /// From a day before on: clocks differ.
    pub(crate) now_ns: i64,
}

/// The files, by name, with their text.
pub(crate) struct Files(Vec<(&'static str, String)>);

/// Writes the files and says what to do with them.
pub(crate) fn run(arguments: &SelfSigned) -> Result<(), String> {
    let wanted = Wanted { hosts: arguments.hosts.clone(), days: arguments.days, now_ns: SystemClock.now_ns() };
    let files = Files::make(&wanted).map_err(|error| format!("cannot make the certificates: {error}"))?;
    files.write(&arguments.dir, arguments.force)?;
    let dir = std::path::absolute(&arguments.dir).map_err(|e| format!("{}: {e}", arguments.dir.display()))?;
    // A closed pipe is no reason to fail: the files are there.
    let _ = io::stdout().write_all(usage(&dir, arguments.days).as_bytes());
    Ok(())
}

impl Files {
    pub(crate) fn make(wanted: &Wanted) -> Result<Self, rcgen::Error> {
        let mut ca = params("SeracDB CA for trying out", vec![], wanted)?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let ca_pem = ca.self_signed(&key)?.pem();
        let ca = Issuer::new(ca, key);

        let hosts = HOSTS.into_iter().map(str::to_owned).chain(wanted.hosts.iter().cloned()).collect();
        let mut server = params("SeracDB server", hosts, wanted)?;
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let mut client = params("SeracDB client", vec![], wanted)?;
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let mut files = vec![("ca.pem", ca_pem)];
        for (params, pem, key_file) in [(server, "server.pem", "server.key"), (client, "client.pem", "client.key")] {
            let key = KeyPair::generate()?;
            files.push((pem, params.signed_by(&key, &ca)?.pem()));
            files.push((key_file, key.serialize_pem()));
        }
        Ok(Self(files))
    }

    /// Keys are for their owner only. Files that are there already stay, all of them, unless `force` is given.
    pub(crate) fn write(&self, dir: &Path, force: bool) -> Result<(), String> {
        let failed = |path: &Path, error: io::Error| format!("cannot write {}: {error}", path.display());
        std::fs::create_dir_all(dir).map_err(|error| failed(dir, error))?;
        let there = self.0.iter().map(|(name, _)| dir.join(name)).find(|path| path.exists());
        if let Some(path) = there.filter(|_| !force) {
            return Err(format!("{} is there already: give another --dir, or --force to replace it", path.display()));
        }
        for (name, text) in &self.0 {
            let path = dir.join(name);
            let mode = if name.ends_with(".key") { 0o600 } else { 0o644 };
            write(&path, text, mode).map_err(|error| failed(&path, error))?;
        }
        Ok(())
    }
}

/// A new file, so that it has this mode from its first byte on.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn params(name: &str, hosts: Vec<String>, wanted: &Wanted) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let now = date_time_ymd(1970, 1, 1) + Duration::from_nanos(wanted.now_ns.unsigned_abs());
    params.not_before = now - DAY;
    params.not_after = now + DAY * wanted.days;
    Ok(params)
}

fn usage(dir: &Path, days: u32) -> String {
    let dir = dir.display();
    format!(
        "Wrote ca.pem, server.pem, server.key, client.pem and client.key to {dir}, valid for {days} days.

Start the server:
  seracdb serve --tls-cert {dir}/server.pem --tls-key {dir}/server.key
Connect from the shell, from Python (seracdb or ADBC) and over JDBC:
  seracdb sql --uri grpc+tls://127.0.0.1:50051 --tls-ca {dir}/ca.pem
  seracdb.connect(\"grpc+tls://127.0.0.1:50051\", \"root\", \"…\", tls_ca=\"{dir}/ca.pem\")
  jdbc:arrow-flight-sql://127.0.0.1:50051/?useEncryption=true&tlsRootCerts={dir}/ca.pem

To let only those in who have the client's certificate, start it with
  --tls-client-ca {dir}/ca.pem
and connect with, besides the above,
  --tls-cert {dir}/client.pem --tls-key {dir}/client.key
  tls_cert=\"{dir}/client.pem\", tls_key=\"{dir}/client.key\"
  &clientCertificate={dir}/client.pem&clientKey={dir}/client.key

These are for trying out. Elsewhere use certificates of a CA of your own.
"
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn made() -> Files {
        Files::make(&Wanted { hosts: vec!["db.example".into(), "10.1.2.3".into()], days: 3, now_ns: 0 }).unwrap()
    }

    #[test]
    fn keys_are_for_their_owner_and_nothing_is_replaced_unasked() {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path().join("new/one");
        made().write(&dir, false).unwrap();
        let mode = |name: &str| std::fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("server.key"), mode("client.key")), (0o600, 0o600));
        std::fs::set_permissions(dir.join("server.key"), PermissionsExt::from_mode(0o644)).unwrap();
        std::fs::remove_file(dir.join("ca.pem")).unwrap();
        let before = std::fs::read_to_string(dir.join("server.pem")).unwrap();
        let error = made().write(&dir, false).unwrap_err();
        assert!(error.contains("server.pem") && error.contains("--force"), "{error}");
        assert!(!dir.join("ca.pem").exists(), "all or none");
        assert_eq!(std::fs::read_to_string(dir.join("server.pem")).unwrap(), before);
        made().write(&dir, true).unwrap();
        assert_ne!(std::fs::read_to_string(dir.join("server.pem")).unwrap(), before);
        assert_eq!(mode("server.key"), 0o600);
    }

    #[test]
    fn a_name_that_no_certificate_can_have_is_an_error() {
        assert!(Files::make(&Wanted { hosts: vec!["zürich".into()], days: 1, now_ns: 0 }).is_err());
    }
}
