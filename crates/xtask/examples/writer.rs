//! The client that `cargo xtask bench write` measures with: it writes to gantry or to etcd, by gRPC on one connection, and
//! says as JSON how long that took.
//!
//! It is a program of its own, and an example, so that gRPC is not built before `cargo xtask` can do anything. Of the
//! messages it has what it needs, as `proto/api.proto`, `proto/model.proto` and etcd's `rpc.proto` have them.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use prost::Message;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tonic::Request;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

const DEPLOY: &str = "/gantry.api.v1.Cluster/Deploy";
const PUT: &str = "/etcdserverpb.KV/Put";

/// The cluster has to know it. Nothing is started of it.
const IMAGE: &str = "busybox";
/// `RESTART_CONDITION_ALWAYS`, Compose's default for what is deployed.
const ALWAYS: i32 = 3;

#[derive(Debug, Parser)]
struct Options {
    /// To whom
    #[arg(value_enum)]
    target: Target,
    /// The Unix socket of the one who leads
    socket: String,
    /// How many writes are timed, one after the other
    #[arg(long)]
    writes: u32,
    /// How many write at once after that
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    writers: u32,
    /// For so long
    #[arg(long)]
    seconds: u64,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Target {
    Gantry,
    Etcd,
}

/// `gantry.api.v1.DeployRequest`
#[derive(Clone, PartialEq, Message)]
struct Deploy {
    #[prost(string, tag = "1")]
    request: String,
    #[prost(string, tag = "2")]
    stack: String,
    #[prost(btree_map = "string, message", tag = "3")]
    services: BTreeMap<String, Service>,
}

/// `gantry.model.v1.ServiceSpec`, of no replicas.
#[derive(Clone, PartialEq, Message)]
struct Service {
    #[prost(message, optional, tag = "3")]
    task: Option<Task>,
}

/// `gantry.model.v1.TaskSpec`
#[derive(Clone, PartialEq, Message)]
struct Task {
    #[prost(string, tag = "1")]
    image: String,
    #[prost(message, optional, tag = "3")]
    command: Option<Words>,
    #[prost(btree_map = "string, string", tag = "4")]
    environment: BTreeMap<String, String>,
    #[prost(message, optional, tag = "9")]
    resources: Option<Resources>,
    #[prost(message, optional, tag = "10")]
    restart: Option<Restart>,
}

/// `gantry.model.v1.Words`
#[derive(Clone, PartialEq, Message)]
struct Words {
    #[prost(string, repeated, tag = "1")]
    words: Vec<String>,
}

/// `gantry.model.v1.Resources`, which has to be there with both of its parts.
#[derive(Clone, PartialEq, Message)]
struct Resources {
    #[prost(message, optional, tag = "1")]
    reservations: Option<Nothing>,
    #[prost(message, optional, tag = "2")]
    limits: Option<Nothing>,
}

/// `gantry.model.v1.RestartPolicy`
#[derive(Clone, PartialEq, Message)]
struct Restart {
    #[prost(int32, tag = "1")]
    condition: i32,
}

/// `gantry.api.v1.ChangeReply`
#[derive(Clone, PartialEq, Message)]
struct Changed {
    #[prost(bool, tag = "2")]
    changed: bool,
}

/// `etcdserverpb.PutRequest`
#[derive(Clone, PartialEq, Message)]
struct Put {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// A message of which no field is set, or none is looked at.
#[derive(Clone, PartialEq, Message)]
struct Nothing {}

/// Writes one thing again and again, each time otherwise: a stack to gantry, a key to etcd.
struct Writer {
    grpc: Grpc<Channel>,
    target: Target,
    /// When this program began: no two runs say the same.
    run: u64,
    number: u32,
    count: u32,
}

impl Writer {
    /// Writes, and returns how long it took until that was acknowledged.
    async fn write(&mut self) -> Result<Duration> {
        let deploy = self.next_deploy();
        match self.target {
            Target::Gantry => {
                let (reply, took): (Changed, _) = call(&mut self.grpc, DEPLOY, deploy).await?;
                ensure!(reply.changed, "gantry took a deployment for what it had already");
                Ok(took)
            }
            Target::Etcd => {
                let value = deploy.encode_to_vec();
                let put = Put { key: deploy.stack.into_bytes(), value };
                let (_, took): (Nothing, _) = call(&mut self.grpc, PUT, put).await?;
                Ok(took)
            }
        }
    }

    /// As `gantry deploy` sends it, of one service that differs by one variable from the one before.
    fn next_deploy(&mut self) -> Deploy {
        self.count += 1;
        let Self { run, number, count, .. } = self;
        // 32 hex digits, as a request's id has them.
        let request = format!("{run:016x}{number:08x}{count:08x}");
        let task = Task {
            image: IMAGE.to_owned(),
            command: Some(Words { words: vec!["sleep".to_owned(), "infinity".to_owned()] }),
            environment: BTreeMap::from([("VALUE".to_owned(), request.clone())]),
            resources: Some(Resources { reservations: Some(Nothing {}), limits: Some(Nothing {}) }),
            restart: Some(Restart { condition: ALWAYS }),
        };
        let services = BTreeMap::from([("web".to_owned(), Service { task: Some(task) })]);
        Deploy { request, stack: format!("write{number:02}"), services }
    }
}

/// One call, from before its message is encoded until its answer is read.
async fn call<M, R>(grpc: &mut Grpc<Channel>, path: &'static str, message: M) -> Result<(R, Duration)>
where
    M: Message + 'static,
    R: Message + Default + 'static,
{
    let began = Instant::now();
    grpc.ready().await.context("the connection broke")?;
    let codec = ProstCodec::<M, R>::default();
    let reply = grpc.unary(Request::new(message), PathAndQuery::from_static(path), codec).await;
    let reply = reply.with_context(|| format!("{path} failed"))?;
    Ok((reply.into_inner(), began.elapsed()))
}

async fn measure(options: &Options) -> Result<Value> {
    let Options { target, socket, writes, writers, seconds } = options;
    let endpoint = Endpoint::from_shared(format!("unix://{socket}")).context("this is no socket's path")?;
    let channel = endpoint.connect().await.with_context(|| format!("cannot connect to {socket}"))?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let run = u64::try_from(since.as_nanos()).context("the clock is after 2500")?;
    let writer = |number| Writer { grpc: Grpc::new(channel.clone()), target: *target, run, number, count: 0 };
    let mut all: Vec<Writer> = (0..*writers).map(writer).collect();
    // Once each, to warm up: from here on there is what they write to.
    for writer in &mut all {
        writer.write().await?;
    }
    let first = all.first_mut().context("nobody is to write")?;
    let mut milliseconds = Vec::new();
    for _ in 0..*writes {
        milliseconds.push(first.write().await?.as_secs_f64() * 1000.0);
    }
    let bytes = first.next_deploy().encoded_len();
    let rate = together(all, Duration::from_secs(*seconds)).await?;
    Ok(json!({"bytes": bytes, "milliseconds": milliseconds, "writes_a_second": rate}))
}

/// Lets all of them write for this long. Returns how many writes were acknowledged a second.
async fn together(writers: Vec<Writer>, length: Duration) -> Result<f64> {
    let began = Instant::now();
    let mut writing = JoinSet::new();
    for mut writer in writers {
        writing.spawn(async move {
            let mut written: u32 = 0;
            while began.elapsed() < length {
                writer.write().await?;
                written += 1;
            }
            anyhow::Ok(written)
        });
    }
    let mut written: u32 = 0;
    while let Some(done) = writing.join_next().await {
        written += done.context("a writer panicked")??;
    }
    Ok(f64::from(written) / began.elapsed().as_secs_f64())
}

fn main() -> Result<()> {
    let options = Options::parse();
    // One thread: what is measured has the other processors.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let figures = runtime.context("cannot start")?.block_on(measure(&options))?;
    writeln!(io::stdout(), "{figures}").context("cannot say the figures")
}
