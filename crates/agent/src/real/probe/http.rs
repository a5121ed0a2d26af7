//! A request over HTTP/1.1 (RFC 9112), as much of it as it takes to read a status.

use std::net::Ipv4Addr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use model::HttpProbe;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{Answered, KEPT};

/// The longest head of an answer that is read. Servers have limits like it for requests.
const HEAD: usize = 16 << 10;

/// How long a body is waited for. The status is known by then, and a server that does not hang up though it is asked to is
/// not kept waiting for.
const BODY_TIME: Duration = Duration::from_millis(250);

/// The status and the beginning of the body; healthy from 200 to 399.
pub(super) async fn get(address: Ipv4Addr, probe: &HttpProbe) -> Result<String, String> {
    let request = request(address, probe)?;
    let connected = TcpStream::connect((address, probe.port)).await;
    let stream = connected.map_err(|error| format!("cannot connect to port {}: {error}", probe.port))?;
    let (status, text) = if probe.tls {
        let connector = TlsConnector::from(Arc::clone(&TLS));
        let stream = connector.connect(server_name(address, probe), stream).await;
        let stream = stream.map_err(|error| format!("the TLS handshake failed: {error}"))?;
        exchange(stream, request.as_bytes()).await?
    } else {
        exchange(stream, request.as_bytes()).await?
    };
    if (200..400).contains(&status) { Ok(text) } else { Err(text) }
}

/// What is sent. A header that the probe names replaces the one that would be sent.
fn request(address: Ipv4Addr, probe: &HttpProbe) -> Result<String, String> {
    let HttpProbe { port, path, tls, host, headers } = probe;
    if !path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!("`{}` is not a path of a request", path.escape_debug()));
    }
    let usual = if *tls { 443 } else { 80 };
    let host = match host {
        Some(host) => host.clone(),
        None if *port == usual => address.to_string(),
        None => format!("{address}:{port}"),
    };
    let own = [("Host", host.as_str()), ("User-Agent", "gantry"), ("Accept", "*/*"), ("Connection", "close")];
    let own = own
        .into_iter()
        .filter(|(name, _)| !headers.iter().any(|(named, _)| named.eq_ignore_ascii_case(name)));
    let named = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut text = format!("GET {path} HTTP/1.1\r\n");
    for (name, value) in own.chain(named) {
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(is_token) || value.contains(['\r', '\n', '\0']) {
            return Err(format!("`{}: {}` is not a header", name.escape_debug(), value.escape_debug()));
        }
        text += &format!("{name}: {value}\r\n");
    }
    Ok(text + "\r\n")
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &[u8],
) -> Result<(u16, String), String> {
    let broken = |error: std::io::Error| format!("the connection broke: {error}");
    stream.write_all(request).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let mut read = Vec::with_capacity(KEPT);
    let head = loop {
        if let Some(head) = Head::parse(&read)? {
            break head;
        }
        if read.len() >= HEAD {
            return Err(format!("the answer has a head of more than {} KiB", HEAD >> 10));
        }
        if stream.read_buf(&mut read).await.map_err(broken)? == 0 {
            return Err("the connection was closed without an answer".to_owned());
        }
    };
    let mut body = Answered::default();
    body.push(&read[head.end..]);
    // However it ends, there is a status.
    let _ = timeout(BODY_TIME, read_body(&mut stream, head.length, &mut body)).await;
    let text = format!("{}\n{}", head.line, body.text());
    Ok((head.status, text.trim_end().to_owned()))
}

async fn read_body(stream: &mut (impl AsyncRead + Unpin), length: Option<usize>, body: &mut Answered) {
    let mut piece = [0; 4096];
    while !body.is_full() && length.is_none_or(|length| body.0.len() < length) {
        match stream.read(&mut piece).await {
            Ok(count) if count > 0 => body.push(&piece[..count]),
            Ok(_) | Err(_) => return,
        }
    }
}

/// The head of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// The status and its reason.
    line: String,
    /// Where it ends, and the body begins.
    end: usize,
    length: Option<usize>,
}

impl Head {
    /// Reads what has come so far; `None` is that there is more to come. Interim answers (1xx) are passed over.
    fn parse(read: &[u8]) -> Result<Option<Self>, String> {
        let mut begin = 0;
        loop {
            let rest = &read[begin..];
            let magic = b"HTTP/1.";
            if !rest.starts_with(&magic[..rest.len().min(magic.len())]) {
                let begun = String::from_utf8_lossy(&rest[..rest.len().min(40)]).into_owned();
                return Err(format!("the answer is not HTTP/1.1 but begins with {begun:?}"));
            }
            let Some(length) = rest.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
            let text = String::from_utf8_lossy(&rest[..length]);
            let mut lines = text.split("\r\n");
            let line = lines.next().unwrap_or_default().split_once(' ').map_or("", |(_, line)| line);
            let digits = line.split(' ').next().unwrap_or_default();
            let status =
                digits.parse::<u16>().ok().filter(|status| (100..1000).contains(status) && digits.len() == 3);
            let status =
                status.ok_or_else(|| format!("the answer has no status but `{}`", line.escape_debug()))?;
            begin += length + 4;
            // Nobody asked for another protocol, so 101 is as good as an answer.
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let lengths = lines.filter_map(|line| line.split_once(':'));
            let length = lengths.filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).last();
            let length = match status {
                204 | 304 => Some(0),
                _ => length.and_then(|(_, length)| length.trim().parse().ok()),
            };
            return Ok(Some(Self { status, line: line.to_owned(), end: begin, length }));
        }
    }
}

/// Takes any certificate: a container is asked by its address, which no certificate has, and over the node's own bridge.
static TLS: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring has the cipher suites of TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    Arc::new(config)
});

/// The name that is asked for: some servers have a certificate for each. An address asks for none.
fn server_name(address: Ipv4Addr, probe: &HttpProbe) -> ServerName<'static> {
    let host = probe.host.as_deref().map(|host| host.split_once(':').map_or(host, |(name, _)| name));
    let named = host.and_then(|host| ServerName::try_from(host.to_owned()).ok());
    named.unwrap_or_else(|| ServerName::from(address))
}

#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
