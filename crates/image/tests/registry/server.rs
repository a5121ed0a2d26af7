//! A registry that does as it is told: one answer to a connection, and a record of what it was asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use image::registry::{Reference, RegistryHost};
use model::ImageName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::archive::{Blobs, digest};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// It ends with this.
pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Asked>>>,
    serving: JoinSet<()>,
}

#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// How often this method and path were asked for before.
    pub(crate) before: usize,
    pub(crate) address: SocketAddr,
}

impl Asked {
    /// Where what is asked for begins, if it is only the rest.
    pub(crate) fn begins_at(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Body,
}

enum Body {
    Whole(Vec<u8>),
    /// This much is announced; what there is is sent, and then nothing, or the end of the connection.
    Cut {
        content: Vec<u8>,
        announced: usize,
        hangs: bool,
    },
    /// Ends with the connection, so that its length is not announced.
    Unannounced(Vec<u8>),
    /// This again and again.
    Endless(Vec<u8>),
    /// One byte at a time, for ever, with a pause between that is shorter than anybody's patience.
    Drip,
    /// Not even a status.
    Silence,
}

impl Reply {
    pub(crate) fn of(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Body::Whole(Vec::new()) }
    }

    pub(crate) fn ok(content: impl Into<Vec<u8>>) -> Self {
        Self { body: Body::Whole(content.into()), ..Self::of(200) }
    }

    pub(crate) fn error(status: u16, code: &str) -> Self {
        let text = format!(r#"{{"errors":[{{"code":"{code}","message":"{code}"}}]}}"#);
        Self { body: Body::Whole(text.into_bytes()), ..Self::of(status) }
    }

    pub(crate) fn unannounced(content: impl Into<Vec<u8>>) -> Self {
        Self { body: Body::Unannounced(content.into()), ..Self::of(200) }
    }

    /// The first `length` bytes of what it announces.
    pub(crate) fn cut(content: &[u8], length: usize) -> Self {
        let cut = Body::Cut { content: content[..length].to_vec(), announced: content.len(), hangs: false };
        Self { body: cut, ..Self::of(200) }
    }

    pub(crate) fn stalled(content: &[u8], length: usize) -> Self {
        let cut = Body::Cut { content: content[..length].to_vec(), announced: content.len(), hangs: true };
        Self { body: cut, ..Self::of(200) }
    }

    pub(crate) fn endless() -> Self {
        Self { body: Body::Endless(vec![b' '; 64 << 10]), ..Self::of(200) }
    }

    pub(crate) fn drip() -> Self {
        Self { body: Body::Drip, ..Self::of(200) }
    }

    pub(crate) fn silence() -> Self {
        Self { body: Body::Silence, ..Self::of(200) }
    }

    /// What is left of something of `whole` bytes when the first `from` are known.
    pub(crate) fn rest(self, from: usize, whole: usize) -> Self {
        let range = format!("bytes {from}-{}/{whole}", whole - 1);
        Self { status: 206, ..self }.with("Content-Range", &range)
    }

    pub(crate) fn redirect(to: &str) -> Self {
        Self::of(307).with("Location", to)
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl Registry {
    pub(crate) async fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, address, Arc::clone(&seen), Arc::new(answer)));
        Self { address, seen, serving }
    }

    /// Nobody answers any more when this is done.
    pub(crate) async fn stop(mut self) {
        self.serving.shutdown().await;
    }

    pub(crate) fn host(&self) -> RegistryHost {
        self.address.to_string().parse().unwrap()
    }

    /// An image of this name here.
    pub(crate) fn image(&self, name: &str) -> Reference {
        let name: ImageName = format!("{}/{name}", self.address).parse().unwrap();
        Reference::try_from(&name).unwrap()
    }

    /// What was asked, but for the question how this registry speaks.
    pub(crate) fn seen(&self) -> Vec<Asked> {
        let seen = self.seen.lock().unwrap().clone();
        seen.into_iter().filter(|asked| asked.path != "/v2/").collect()
    }

    /// As text, one a line.
    pub(crate) fn log(&self) -> Vec<String> {
        self.seen().iter().map(|asked| format!("{} {}", asked.method, asked.path)).collect()
    }
}

type Answer = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

async fn serve(listener: TcpListener, address: SocketAddr, seen: Arc<Mutex<Vec<Asked>>>, answer: Answer) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
        connections.spawn(async move {
            // A client that has had enough goes away, which is its right.
            drop(converse(stream, address, &seen, &answer).await);
        });
    }
}

async fn converse(
    mut stream: TcpStream,
    address: SocketAddr,
    seen: &Mutex<Vec<Asked>>,
    answer: &Answer,
) -> std::io::Result<()> {
    let Some(mut asked) = read(&mut stream, address).await? else { return Ok(()) };
    let reply = {
        let mut seen = seen.lock().unwrap();
        let same = |known: &&Asked| known.method == asked.method && known.path == asked.path;
        asked.before = seen.iter().filter(same).count();
        seen.push(asked.clone());
        answer(&asked)
    };
    write(&mut stream, reply, asked.method == "HEAD").await?;
    stream.shutdown().await
}

/// `None` for what is no HTTP: most likely the beginning of TLS.
async fn read(stream: &mut TcpStream, address: SocketAddr) -> std::io::Result<Option<Asked>> {
    let mut text = Vec::new();
    let end = loop {
        if let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut text).await? == 0 || !text[0].is_ascii_uppercase() {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&text[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = text.split_off(end + 4);
    while body.len() < length && stream.read_buf(&mut body).await? > 0 {}
    Ok(Some(Asked { method, path, headers, body, before: 0, address }))
}

async fn write(stream: &mut TcpStream, reply: Reply, is_head: bool) -> std::io::Result<()> {
    let Reply { status, headers, body } = reply;
    let length = match &body {
        Body::Whole(content) => Some(content.len()),
        Body::Cut { announced, .. } => Some(*announced),
        Body::Unannounced(_) | Body::Endless(_) | Body::Drip => None,
        Body::Silence => return std::future::pending().await,
    };
    let mut head = format!("HTTP/1.1 {status} Whatever\r\nConnection: close\r\n");
    for (name, value) in &headers {
        head += &format!("{name}: {value}\r\n");
    }
    if let Some(length) = length {
        head += &format!("Content-Length: {length}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await?;
    if is_head {
        return Ok(());
    }
    match body {
        Body::Whole(content) | Body::Unannounced(content) => stream.write_all(&content).await,
        Body::Cut { content, announced: _, hangs } => {
            stream.write_all(&content).await?;
            if hangs { std::future::pending().await } else { Ok(()) }
        }
        Body::Endless(piece) => loop {
            stream.write_all(&piece).await?;
        },
        Body::Drip => {
            let mut pace = tokio::time::interval(std::time::Duration::from_millis(5));
            loop {
                pace.tick().await;
                stream.write_all(b" ").await?;
            }
        }
        Body::Silence => Ok(()),
    }
}

/// What a registry that has this image under every name answers.
pub(crate) fn honest(image: &Blobs, asked: &Asked) -> Reply {
    let name = asked.path.rsplit('/').next().unwrap_or_default();
    if asked.path == "/v2/" {
        return Reply::ok("{}");
    }
    if asked.path.contains("/manifests/") {
        if name.starts_with("sha256:") && name != digest(&image.manifest) {
            return Reply::error(404, "MANIFEST_UNKNOWN");
        }
        return document(MANIFEST, &image.manifest);
    }
    let Some(content) = image.all.get(name) else { return Reply::error(404, "BLOB_UNKNOWN") };
    match asked.begins_at() {
        None => Reply::ok(content.clone()),
        Some(from) => Reply::ok(&content[from..]).rest(from, content.len()),
    }
}

/// A manifest or index, with the headers that go with it.
pub(crate) fn document(media_type: &str, text: &[u8]) -> Reply {
    Reply::ok(text).with("Content-Type", media_type).with("Docker-Content-Digest", &digest(text))
}
