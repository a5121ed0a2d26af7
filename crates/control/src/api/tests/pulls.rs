//! Deployments and logins against a registry on loopback, in real time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::{Bytes, Digest, ImageName, NodeId, PullPolicy, RequestId};
use state::{Command, Proposal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tonic::{Code, Request, Status};
use wire::proto::api::cluster_server::Cluster as _;
use wire::proto::api::{
    ChangeReply, ListRequest, LoginRegistryRequest, RegistryRequest, SetRegistryRequest, TagImageRequest,
};
use wire::proto::model::RegistryCredential;
use wire::proto::model::registry_credential::Secret;

use crate::alone::{deployment, service};
use crate::api::Api;

const FIRST: Digest = Digest([0xa1; 32]);
const SECOND: Digest = Digest([0xb2; 32]);

/// `user` and the password `secret`, as HTTP's basic authentication has them.
const BASIC: &str = "Basic dXNlcjpzZWNyZXQ=";

/// What it has, and how often it was asked for any of it.
#[derive(Debug, Default)]
struct Kept {
    tags: BTreeMap<String, Digest>,
    asked: usize,
    guarded: bool,
}

/// Says of every tag what it stands for, over plain http. It ends with this.
struct Registry {
    address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    _serving: JoinSet<()>,
}

impl Registry {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, kept) = (listener.local_addr().unwrap(), Arc::<Mutex<Kept>>::default());
        let mut serving = JoinSet::new();
        let answers = kept.clone();
        serving.spawn(async move {
            let mut calls = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                calls.spawn(answer(stream, answers.clone()));
            }
        });
        Self { address, kept, _serving: serving }
    }

    fn image(&self, name: &str) -> ImageName {
        format!("{}/{name}", self.address).parse().unwrap()
    }

    fn tag(&self, name: &str, image: Digest) {
        self.lock().tags.insert(name.to_owned(), image);
    }

    /// How often it was asked for an image since the last time.
    fn asked(&self) -> usize {
        std::mem::take(&mut self.lock().asked)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(mut stream: TcpStream, kept: Arc<Mutex<Kept>>) {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut piece = [0; 1024];
        match stream.read(&mut piece).await {
            Ok(count) if count > 0 => request.extend_from_slice(&piece[..count]),
            Ok(_) | Err(_) => return,
        }
        // TLS, which this one does not speak.
        if request[0] == 0x16 {
            return;
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let reply = reply(&request, &mut kept.lock().unwrap_or_else(PoisonError::into_inner));
    let _gone = stream.write_all(reply.as_bytes()).await;
    let _gone = stream.shutdown().await;
}

fn reply(request: &str, kept: &mut Kept) -> String {
    let path = request.split(' ').nth(1).unwrap_or_default();
    let said = |status: &str, headers: &str| {
        format!("HTTP/1.1 {status}\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n")
    };
    if kept.guarded && !request.contains(BASIC) {
        return said("401 Unauthorized", "www-authenticate: Basic realm=\"test\"\r\n");
    }
    let Some((repository, tag)) = path.strip_prefix("/v2/").and_then(|path| path.split_once("/manifests/"))
    else {
        return said("200 OK", "");
    };
    kept.asked += 1;
    match kept.tags.get(&format!("{repository}:{tag}")) {
        // To HEAD, this is what a manifest of so many bytes is announced with.
        Some(image) => format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.oci.image.manifest.v1+json\r\n\
             docker-content-digest: {image}\r\ncontent-length: 500\r\nconnection: close\r\n\r\n"
        ),
        None => said("404 Not Found", ""),
    }
}

async fn api() -> Api {
    super::api().await
}

async fn deploy(api: &Api, number: u128, image: &ImageName, pull: PullPolicy) -> Result<ChangeReply, Status> {
    let mut spec = service(1);
    spec.task.image = image.clone();
    spec.task.pull = pull;
    let deployment = deployment(&wire::request_text(RequestId(number)), &spec);
    Ok(api.deploy(Request::new(deployment)).await?.into_inner())
}

/// What the service is made from now.
async fn runs(api: &Api) -> Digest {
    let state = api.state().await.unwrap();
    let (_, service) = state.services().next().expect("it was deployed");
    service.templates[&service.version].image
}

#[tokio::test]
async fn a_tag_is_pinned_when_it_is_deployed_and_asked_for_as_the_policy_says() {
    let (api, registry) = (api().await, Registry::start().await);
    let app = registry.image("app:1");
    registry.tag("app:1", FIRST);
    let first = deploy(&api, 1, &app, PullPolicy::Missing).await.unwrap();
    assert!(first.changed && first.warnings.is_empty());
    assert_eq!((runs(&api).await, registry.asked()), (FIRST, 1));
    registry.tag("app:1", SECOND);
    let again = deploy(&api, 2, &app, PullPolicy::Missing).await.unwrap();
    assert!(!again.changed);
    for policy in [PullPolicy::Never, PullPolicy::After(Duration::from_secs(60))] {
        deploy(&api, policy_number(policy), &app, policy).await.unwrap();
        assert_eq!((runs(&api).await, registry.asked()), (FIRST, 0), "{policy:?}");
    }
    deploy(&api, 5, &app, PullPolicy::Always).await.unwrap();
    assert_eq!((runs(&api).await, registry.asked()), (SECOND, 1));
    let state = api.state().await.unwrap();
    let origin = state.image(SECOND).and_then(|image| image.origin.as_ref()).map(ToString::to_string);
    assert_eq!(origin, Some(format!("{}/app", registry.address)));
}

fn policy_number(policy: PullPolicy) -> u128 {
    if policy == PullPolicy::Never { 3 } else { 4 }
}

#[tokio::test]
async fn a_registry_that_is_down_keeps_nobody_from_what_the_cluster_has() {
    let (api, registry) = (api().await, Registry::start().await);
    let (app, known) = (registry.image("app:1"), registry.image("known:1"));
    registry.tag("app:1", FIRST);
    let first = deploy(&api, 1, &app, PullPolicy::Always).await.unwrap();
    let put = Command::PutImage { name: known.clone(), image: SECOND, size: Bytes(1), holder: NodeId(1) };
    let at = api.parts.store.state().time();
    api.parts.store.propose(Proposal { at, request: None, by: None, commands: vec![put] }).await.unwrap();
    drop(registry);

    assert_eq!(deploy(&api, 1, &app, PullPolicy::Always).await.unwrap(), first, "it was answered");
    deploy(&api, 2, &app, PullPolicy::Missing).await.unwrap();
    let refused = deploy(&api, 3, &app, PullPolicy::Always).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    for part in [
        format!("service `web`: image `{app}`: cannot look up {app}: cannot reach http://"),
        format!("bring it in with `gantry image import FILE {app}`"),
    ] {
        assert!(refused.message().contains(&part), "{}", refused.message());
    }
    let fallen_back = deploy(&api, 4, &known, PullPolicy::After(Duration::from_secs(60))).await.unwrap();
    assert_eq!(runs(&api).await, SECOND);
    let [warning] = &fallen_back.warnings[..] else { panic!("{:?}", fallen_back.warnings) };
    assert!(warning.contains(known.as_str()) && warning.contains("what the cluster has"), "{warning}");
}

#[tokio::test]
async fn what_nobody_has_is_named_with_its_service() {
    let (api, registry) = (api().await, Registry::start().await);
    let absent = registry.image("absent:1");
    let refused = deploy(&api, 1, &absent, PullPolicy::Missing).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().starts_with(&format!("service `web`: image `{absent}`: ")), "{refused:?}");
    assert!(registry.asked() > 0);
    let forbidden = deploy(&api, 2, &absent, PullPolicy::Never).await.unwrap_err();
    assert_eq!((forbidden.code(), registry.asked()), (Code::NotFound, 0));
    assert!(forbidden.message().contains("no registry is asked"), "{forbidden:?}");
}

#[tokio::test]
async fn a_name_by_digest_is_pinned_to_what_it_says() {
    let (api, registry) = (api().await, Registry::start().await);
    registry.tag(&format!("app:{FIRST}"), FIRST);
    let named: ImageName = format!("{}/app@{FIRST}", registry.address).parse().unwrap();
    deploy(&api, 1, &named, PullPolicy::Always).await.unwrap();
    assert_eq!((runs(&api).await, registry.asked()), (FIRST, 1));
    deploy(&api, 2, &named, PullPolicy::Always).await.unwrap();
    assert_eq!(registry.asked(), 0, "it cannot have changed");
    let tag = |target: &str| TagImageRequest {
        request: String::new(),
        name: named.to_string(),
        target: target.to_owned(),
    };
    api.tag_image(Request::new(tag("mine:1"))).await.unwrap();
    let state = api.state().await.unwrap();
    assert_eq!(state.image_named(&"mine:1".parse().unwrap()), Some(FIRST));
    let refused = api.tag_image(Request::new(tag(&format!("mine@{SECOND}")))).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

async fn login(api: &Api, number: u128, registry: &Registry, password: &str) -> Result<bool, Status> {
    let secret = Some(Secret::Password(password.to_owned()));
    let request = LoginRegistryRequest {
        request: wire::request_text(RequestId(number)),
        registry: registry.address.to_string(),
        credential: Some(RegistryCredential { username: "user".to_owned(), secret }),
    };
    Ok(api.login_registry(Request::new(request)).await?.into_inner().checked)
}

async fn listed(api: &Api) -> String {
    format!("{:?}", api.list_registries(Request::new(ListRequest::default())).await.unwrap().into_inner())
}

#[tokio::test]
async fn a_password_is_kept_once_the_registry_accepts_it_and_never_shown() {
    let (api, registry) = (api().await, Registry::start().await);
    registry.tag("app:1", FIRST);
    registry.lock().guarded = true;
    let app = registry.image("app:1");
    let nobody = deploy(&api, 1, &app, PullPolicy::Missing).await.unwrap_err();
    assert!(nobody.message().contains(&format!("gantry registry login {}", registry.address)), "{nobody:?}");
    let wrong = login(&api, 2, &registry, "wrong").await.unwrap_err();
    assert_eq!(wrong.code(), Code::FailedPrecondition);
    assert!(wrong.message().contains("does not accept the credentials of user"), "{wrong:?}");
    assert!(!listed(&api).await.contains("user"));

    assert!(login(&api, 3, &registry, "secret").await.unwrap());
    let shown = listed(&api).await;
    assert!(shown.contains("user") && !shown.contains("secret"), "{shown}");
    deploy(&api, 4, &app, PullPolicy::Missing).await.unwrap();
    assert_eq!(runs(&api).await, FIRST);

    let logout = |number| RegistryRequest {
        request: wire::request_text(RequestId(number)),
        registry: registry.address.to_string(),
    };
    api.logout_registry(Request::new(logout(5))).await.unwrap();
    assert!(!listed(&api).await.contains("user"));
    assert_eq!(api.remove_registry(Request::new(logout(6))).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn settings_that_no_client_could_have_are_refused() {
    let api = api().await;
    let set = |registry: &str, ca: &[&str], mirrors: &[&str]| SetRegistryRequest {
        request: String::new(),
        registry: registry.to_owned(),
        insecure: false,
        ca: ca.iter().map(ToString::to_string).collect(),
        mirrors: mirrors.iter().map(ToString::to_string).collect(),
    };
    let none: &[&str] = &[];
    for (registry, ca, mirrors) in [
        ("https://reg.lan", none, none),
        ("reg.lan", &["no certificate"], none),
        ("reg.lan", none, &["reg.lan"]),
        ("reg.lan", none, &["http://mirror.lan"]),
    ] {
        let refused = api.set_registry(Request::new(set(registry, ca, mirrors))).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{registry} {ca:?} {mirrors:?}: {refused:?}");
    }
    let set = api.set_registry(Request::new(set("docker.io", none, &["mirror.lan"]))).await.unwrap();
    assert!(set.into_inner().changed);
    assert!(listed(&api).await.contains("mirror.lan"));
}
