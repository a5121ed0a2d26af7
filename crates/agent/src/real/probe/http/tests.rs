use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::duplex;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const ADDRESS: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn probe(port: u16) -> HttpProbe {
    HttpProbe { port, path: "/healthz?full=1".to_owned(), tls: false, host: None, headers: Vec::new() }
}

fn named(host: Option<&str>, headers: &[(&str, &str)]) -> HttpProbe {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    HttpProbe { host: host.map(str::to_owned), headers, ..probe(8080) }
}

#[test]
fn a_request_says_what_the_probe_says() {
    assert_eq!(
        request(ADDRESS, &probe(8080)).unwrap(),
        "GET /healthz?full=1 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: gantry\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    assert!(request(ADDRESS, &probe(80)).unwrap().contains("\r\nHost: 127.0.0.1\r\n"));
    let https = HttpProbe { tls: true, ..probe(443) };
    assert!(request(ADDRESS, &https).unwrap().contains("\r\nHost: 127.0.0.1\r\n"));
    assert_eq!(
        request(ADDRESS, &named(Some("shop.example"), &[("X-Probe", "yes"), ("accept", "text/plain")]))
            .unwrap(),
        "GET /healthz?full=1 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: gantry\r\nConnection: close\r\n\
         X-Probe: yes\r\naccept: text/plain\r\n\r\n"
    );
}

#[test]
fn a_probe_cannot_say_more_than_one_request() {
    for path in ["", "x", "/a b", "/a\r\nHost: b", "/\n"] {
        let bad = HttpProbe { path: path.to_owned(), ..probe(80) };
        assert!(request(ADDRESS, &bad).is_err(), "{path:?}");
    }
    for header in [("", "x"), ("a b", "x"), ("a:", "x"), ("a", "x\r\nb: c"), ("a", "x\n")] {
        assert!(request(ADDRESS, &named(None, &[header])).is_err(), "{header:?}");
    }
    assert!(request(ADDRESS, &named(Some("a\r\nb"), &[])).is_err());
}

#[test]
fn a_head_is_read_as_far_as_it_has_come() {
    let parse = |text: &str| Head::parse(text.as_bytes());
    for part in ["", "H", "HTTP/1.", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1."] {
        assert_eq!(parse(part), Ok(None), "{part:?}");
    }
    let head =
        |status, line: &str, end, length| Ok(Some(Head { status, line: line.to_owned(), end, length }));
    let plain = "HTTP/1.1 200 OK\r\n\r\n";
    assert_eq!(parse(plain), head(200, "200 OK", plain.len(), None));
    let bare = "HTTP/1.0 503\r\ncontent-LENGTH: 12\r\n\r\n";
    assert_eq!(parse(&format!("{bare}and a body")), head(503, "503", bare.len(), Some(12)));
    let late = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
    assert_eq!(parse(late), head(204, "204 No Content", late.len(), Some(0)));
    for bad in [
        "SSH-2.0-OpenSSH_9.2",
        "\0\0\u{12}\u{4}",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1\r\n\r\n",
        "HTTP/1.1 OK\r\n\r\n",
        "HTTP/1.1 99999 OK\r\n\r\n",
        "HTTP/1.1 +20 OK\r\n\r\n",
    ] {
        assert!(parse(bad).is_err(), "{bad:?} was taken for an answer");
    }
}

/// What a server's words come to that hangs up after them.
async fn answered(words: &[u8]) -> Result<(u16, String), String> {
    let (mut server, client) = duplex(1 << 20);
    server.write_all(words).await.unwrap();
    server.shutdown().await.unwrap();
    exchange(client, b"GET / HTTP/1.1\r\n\r\n").await
}

#[tokio::test]
async fn a_status_and_the_beginning_of_a_body_are_told() {
    let told = answered(b"HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\nno database\n").await;
    assert_eq!(told, Ok((503, "503 Service Unavailable\nno database".to_owned())));
    assert_eq!(
        answered(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n").await,
        Ok((302, "302 Found".to_owned()))
    );
    let mut long = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    long.extend([b'x'; 100_000]);
    let (status, text) = answered(&long).await.unwrap();
    assert_eq!((status, text.len()), (200, "200 OK\n".len() + 4096));
}

#[tokio::test]
async fn an_answer_that_is_none_is_told_as_such() {
    assert_eq!(answered(b"").await, Err("the connection was closed without an answer".to_owned()));
    assert!(answered(b"HTTP/1.1 200 OK\r\n").await.is_err());
    let mut endless = b"HTTP/1.1 200 OK\r\n".to_vec();
    endless.extend([b'x'; 200_000]);
    assert_eq!(answered(&endless).await, Err("the answer has a head of more than 16 KiB".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_hang_up_is_not_waited_for() {
    let (mut server, client) = duplex(1 << 10);
    server.write_all(b"HTTP/1.1 200 OK\r\n\r\nsome").await.unwrap();
    let told = exchange(client, b"GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(told, Ok((200, "200 OK\nsome".to_owned())));
}

/// Answers one connection, after its request has come.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, words: &str) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        assert!(stream.read_buf(&mut request).await.unwrap() > 0, "the request broke off");
    }
    stream.write_all(words.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
}

#[tokio::test]
async fn from_200_to_399_is_healthy() {
    let listener = TcpListener::bind((ADDRESS, 0)).await.unwrap();
    let probe = probe(listener.local_addr().unwrap().port());
    for (status, healthy) in [(200, true), (204, true), (302, true), (399, true), (400, false), (500, false)]
    {
        let words = format!("HTTP/1.1 {status} Word\r\nContent-Length: 0\r\n\r\n");
        let serving = async { serve(listener.accept().await.unwrap().0, &words).await };
        let ((), told) = tokio::join!(serving, get(ADDRESS, &probe));
        let text = format!("{status} Word");
        assert_eq!(told, if healthy { Ok(text) } else { Err(text) });
    }
    drop(listener);
    let refused = get(ADDRESS, &probe).await.unwrap_err();
    assert!(refused.starts_with(&format!("cannot connect to port {}", probe.port)), "{refused}");
}

#[tokio::test]
async fn any_certificate_will_do() {
    let certified = rcgen::generate_simple_self_signed(vec!["another.example".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((ADDRESS, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for host in [None, Some("shop.example:8443".to_owned())] {
        let probe = HttpProbe { tls: true, host, ..probe(port) };
        let serving = async {
            let stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            serve(stream, "HTTP/1.1 200 OK\r\n\r\nsecret").await;
        };
        let ((), told) = tokio::join!(serving, get(ADDRESS, &probe));
        assert_eq!(told, Ok("200 OK\nsecret".to_owned()));
    }
}
