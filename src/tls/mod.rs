//! TLS: certificates and keys from files, and the connections made with them.
//!
//! ```text
//! ServerFiles ──load──> Acceptor  ──accept───> Stream   (clients)
//! ClientFiles ──load──> Connector ──connect──> Stream   (nodes)
//! ```
//!
//! What was read from the files is never read again: a reload loads them anew and puts the new
//! [`Acceptor`] or [`Connector`] in place of the old one. Connections that are open go on with
//! what they began with. TLS 1.2 and 1.3, with the cipher suites that rustls has for *ring*.

mod lane;
mod stream;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub use lane::{Channel, Reader, Writer, Written};
pub use stream::Stream;

/// Where the server's side of TLS comes from: PEM files.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerFiles {
    /// The certificate, and behind it those that lead to the authority.
    pub cert: String,
    /// The authorities that sign clients' certificates; `None`: clients bring none.
    pub key: String,
    /// Who signs clients' certificates; `None`: clients bring none.
    pub client_ca: Option<String>,
    /// Whether a client without a certificate is let in all the same.
    pub client_optional: bool,
}

/// Where the client's side of TLS comes from: PEM files.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientFiles {
    /// The authorities that sign the server's certificate.
    pub ca: String,
    /// Certificate and private key to show to the server.
    pub identity: Option<(String, String)>,
    /// The name, or the address, for which the server's certificate must be.
    pub server_name: String,
}

/// Which of the files is at fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// The certificate.
    Cert,
    /// The private key.
    Key,
    /// The authorities.
    Ca,
    /// The name of the server.
    ServerName,
}

/// Why files can not be used. The text names the file and holds nothing of it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{problem}")]
pub struct LoadError {
    /// The file that is at fault.
    pub part: Part,
    problem: String,
}

/// Whether a file, or a name, can be used as `part`, as far as it can be told of it alone.
///
/// # Errors
///
/// The file can not be read, or is not what it must be.
pub fn check(file: &str, part: Part) -> Result<(), LoadError> {
    match part {
        Part::Cert => certificates(file, part).map(drop),
        Part::Key => private_key(file).map(drop),
        Part::Ca => authorities(file).map(drop),
        Part::ServerName => server_name(file).map(drop),
    }
}

/// Makes clients' connections from accepted ones.
#[derive(Clone)]
pub struct Acceptor(TlsAcceptor);

/// Makes connections to one server.
#[derive(Clone)]
pub struct Connector {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Acceptor {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// A file can not be read or is not what it must be, or key and certificate are no pair.
    pub fn load(files: &ServerFiles) -> Result<Self, LoadError> {
        let certs = certificates(&files.cert, Part::Cert)?;
        let key = private_key(&files.key)?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| LoadError::new(Part::Cert, error))?;
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let roots = Arc::new(authorities(file)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                let verifier = if files.client_optional {
                    verifier.allow_unauthenticated()
                } else {
                    verifier
                };
                let verifier = verifier
                    .build()
                    .map_err(|error| LoadError::new(Part::Ca, error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let config = builder
            .with_single_cert(certs, key)
            .map_err(|error| no_pair(&files.cert, &files.key, &error))?;
        Ok(Self(Arc::new(config).into()))
    }

    /// Shakes hands with a client that has connected.
    ///
    /// # Errors
    ///
    /// The client speaks no TLS, does not trust us, or can not be trusted. No bound on the wait.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<Stream> {
        let stream = self.0.accept(stream).await?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }
}

impl Connector {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// As [`Acceptor::load`].
    pub fn load(files: &ClientFiles) -> Result<Self, LoadError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| LoadError::new(Part::Ca, error))?
            .with_root_certificates(authorities(&files.ca)?);
        let config = match &files.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => builder
                .with_client_auth_cert(certificates(cert, Part::Cert)?, private_key(key)?)
                .map_err(|error| no_pair(cert, key, &error))?,
        };
        Ok(Self {
            connector: Arc::new(config).into(),
            name: server_name(&files.server_name)?,
        })
    }

    /// Shakes hands with the server at the other end.
    ///
    /// # Errors
    ///
    /// It speaks no TLS, can not be trusted, or does not trust us. No bound on the wait.
    pub async fn connect(&self, stream: TcpStream) -> io::Result<Stream> {
        let stream = self.connector.connect(self.name.clone(), stream).await?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl LoadError {
    fn new(part: Part, problem: impl fmt::Display) -> Self {
        Self {
            part,
            problem: problem.to_string(),
        }
    }
}

/// *ring*: it needs a C compiler, as the allocator does, and nothing else; aws-lc needs `CMake`
/// on some machines and several times as long to build.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// All certificates of a file, at least one.
fn certificates(file: &str, part: Part) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let text = read(file, part)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| malformed(file, part, &error))?;
    if certificates.is_empty() {
        return Err(LoadError::new(
            part,
            format!("{file:?} holds no certificate in PEM"),
        ));
    }
    Ok(certificates)
}

fn private_key(file: &str) -> Result<PrivateKeyDer<'static>, LoadError> {
    let text = read(file, Part::Key)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => LoadError::new(
            Part::Key,
            format!("{file:?} holds no private key in PEM (one with a passphrase can not be used)"),
        ),
        error => malformed(file, Part::Key, &error),
    })
}

fn authorities(file: &str) -> Result<RootCertStore, LoadError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file, Part::Ca)? {
        roots.add(certificate).map_err(|error| {
            LoadError::new(
                Part::Ca,
                format!("{file:?} holds a faulty certificate: {error}"),
            )
        })?;
    }
    Ok(roots)
}

fn server_name(name: &str) -> Result<ServerName<'static>, LoadError> {
    ServerName::try_from(name.to_owned()).map_err(|_| {
        let problem = format!("{name:?} is no host's name or address");
        LoadError::new(Part::ServerName, problem)
    })
}

fn read(file: &str, part: Part) -> Result<Vec<u8>, LoadError> {
    std::fs::read(Path::new(file))
        .map_err(|error| LoadError::new(part, format!("can not read {file:?}: {error}")))
}

/// What is wrong with a file's form, without its text, which may be a key.
fn malformed(file: &str, part: Part, error: &pem::Error) -> LoadError {
    let problem = match error {
        pem::Error::MissingSectionEnd { .. } => "a section does not end",
        pem::Error::IllegalSectionStart { .. } => "a section begins wrong",
        pem::Error::Base64Decode(_) => "a section is not in base64",
        _ => "it can not be understood",
    };
    LoadError::new(part, format!("{file:?} is no PEM file: {problem}"))
}

/// rustls refuses the certificate, the key, or the two together.
fn no_pair(cert: &str, key: &str, error: &tokio_rustls::rustls::Error) -> LoadError {
    LoadError::new(
        Part::Key,
        format!("{cert:?} and {key:?} can not be used together: {error}"),
    )
}
