use std::net::SocketAddr;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::*;

/// A server that answers everything with nothing, over TLS if there is a certificate. It ends with this.
struct Server {
    address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Server {
    async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            // One after the other will do: every test asks once.
            while let Ok((stream, _)) = listener.accept().await {
                match &tls {
                    None => answer(stream).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            answer(stream).await;
                        }
                    }
                }
            }
        });
        Self { address, _serving: serving }
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut asked = [0; 4096];
    drop(stream.read(&mut asked).await);
    drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await);
    drop(stream.shutdown().await);
}

/// A certificate and its key.
struct Certified {
    der: CertificateDer<'static>,
    key: KeyPair,
}

impl Certified {
    fn acceptor(&self) -> TlsAcceptor {
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der()).into();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = builder.with_no_client_auth().with_single_cert(vec![self.der.clone()], key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn params(name: &str, is_ca: bool) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, format!("{name}, {is_ca}"));
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

fn self_signed(name: &str, is_ca: bool) -> Certified {
    let key = KeyPair::generate().unwrap();
    let der = params(name, is_ca).self_signed(&key).unwrap().der().clone();
    Certified { der, key }
}

/// An authority, and a certificate of its making for this name.
fn authority_and_leaf(name: &str) -> (CertificateDer<'static>, Certified) {
    let authority = KeyPair::generate().unwrap();
    let root = params("authority", true).self_signed(&authority).unwrap().der().clone();
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(params("authority", true), authority);
    let der = params(name, false).signed_by(&key, &issuer).unwrap().der().clone();
    (root, Certified { der, key })
}

/// Asks the server over verified https, in one word.
async fn ask(address: SocketAddr, given: &[CertificateDer<'static>]) -> &'static str {
    let transport = Transport::new(Settings::default()).unwrap();
    let given = given.iter().map(|certificate| certificate.to_vec()).collect();
    let client = transport.client(Trust { given, is_verified: true, is_local: true }).await.unwrap();
    let url = Url::parse(&format!("https://{address}/")).unwrap();
    let answer = timeout(transport.settings.timeouts.idle, client.get(url.clone()).send()).await;
    let host = RegistryHost::docker_hub();
    let idle = transport.settings.timeouts.idle;
    match answer.unwrap().map_err(|error| RequestError::of(&error, &url, &host, idle)) {
        Ok(_) => "answered",
        Err(RequestError::Untrusted { .. }) => "untrusted",
        Err(RequestError::Certificate { .. }) => "certificate",
        Err(RequestError::PlainHttp { .. }) => "plain http",
        Err(RequestError::Unreachable { .. }) => "unreachable",
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_certificate_is_believed_from_the_authority_that_was_given() {
    let (authority, leaf) = authority_and_leaf("127.0.0.1");
    let server = Server::start(Some(leaf.acceptor())).await;
    assert_eq!(ask(server.address, &[]).await, "untrusted");
    assert_eq!(ask(server.address, &[self_signed("authority", true).der]).await, "untrusted");
    assert_eq!(ask(server.address, std::slice::from_ref(&authority)).await, "answered");
    let (authority, leaf) = authority_and_leaf("other.example");
    let server = Server::start(Some(leaf.acceptor())).await;
    assert_eq!(ask(server.address, &[authority]).await, "certificate", "it is somebody else's");
}

#[tokio::test]
async fn a_certificate_that_was_given_itself_is_believed() {
    for is_ca in [false, true] {
        let own = self_signed("127.0.0.1", is_ca);
        let server = Server::start(Some(own.acceptor())).await;
        assert_eq!(ask(server.address, &[]).await, "untrusted");
        assert_eq!(ask(server.address, std::slice::from_ref(&own.der)).await, "answered");
    }
}

#[tokio::test]
async fn what_speaks_no_https_is_told_from_what_does_not_speak() {
    let plain = Server::start(None).await;
    assert_eq!(ask(plain.address, &[]).await, "plain http");
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(ask(closed, &[]).await, "unreachable");
}

#[tokio::test]
async fn an_insecure_registry_is_believed_whoever_it_is() {
    let server = Server::start(Some(self_signed("other.example", true).acceptor())).await;
    let transport = Transport::new(Settings::default()).unwrap();
    let host: RegistryHost = server.address.to_string().parse().unwrap();
    let peer = Peer { base: host.url("https"), host };
    let call = Call::get(peer.base.clone());
    let answer = transport.exchange(&peer, &call, None).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(transport.system.get().is_none(), "this machine's own certificates are not needed");
}

#[test]
fn where_an_answer_leads_is_held_against_the_registry() {
    let transport = Transport::new(Settings::default()).unwrap();
    let host: RegistryHost = "reg.example".parse().unwrap();
    let peer = Peer { base: host.url("https"), host };
    let from = peer.base.join("v2/a/blobs/b").unwrap();
    let leads = |to: &str| {
        let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_str(to).unwrap())]);
        transport.location(&peer, &from, &headers).map(String::from).map_err(|refused| refused.to_string())
    };
    assert_eq!(leads("/v2/elsewhere"), Ok("https://reg.example/v2/elsewhere".to_owned()));
    assert_eq!(leads("https://cdn.example/x?y"), Ok("https://cdn.example/x?y".to_owned()));
    assert!(leads("http://cdn.example/").unwrap_err().contains("is not encrypted"));
    assert!(leads("http://reg.example/v2/").unwrap_err().contains("is not encrypted"));
    assert!(leads("https://127.0.0.1/").unwrap_err().contains("is inside of a network"));
    assert_eq!(transport.location(&peer, &from, &HeaderMap::new()), Err(RefusedAddress::Missing));
}
