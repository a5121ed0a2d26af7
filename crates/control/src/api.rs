//! What users ask of the cluster. Every call here runs on the leader: [`crate::forward`] has seen to that.

mod commit;
mod converge;
mod follow;
mod images;
mod inspect;
mod jobs;
mod join;
mod logs;
mod nodes;
mod open;
mod pins;
mod plan;
mod rebalance;
mod registries;
mod rollouts;
mod run;
mod settings;
#[cfg(test)]
mod tests;
mod transfers;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;

use futures::Stream;
use identity::Peer;
use model::{Digest, ImageName, Name, ServiceName, ServiceSpec};
use state::{Command, Declared, Done, Outcome, Proposal, Rejected, State};
use store::{Leadership, ProposeError};
use tonic::{Request, Response, Status, Streaming};
use wire::proto::api::cluster_server::Cluster;
use wire::proto::api::{
    ChangeReply, CommitRequest, ConvergeRequest, CreateTokenRequest, DeployRequest, DrainProgress,
    DrainedRequest, HistoryReply, ImageList, ImportChunk, ImportProgress, InspectReply, InspectRequest,
    JobList, JobRequest, JoinReply, JoinRequest, ListRequest, LogEntry, LoginRegistryReply,
    LoginRegistryRequest, LogsRequest, NodeList, NodeRequest, OpenInput, PlanRebalanceRequest, PlanReply,
    Progress, PullImageRequest, PushImageRequest, PutSettingsRequest, RebalancePlan, RebalanceRequest,
    RegistryList, RegistryRequest, RemoveImageRequest, RemoveStackRequest, RestartRequest, RolloutReply,
    RolloutRequest, RunOnceReply, RunOnceRequest, SaveChunk, SaveImageRequest, ScaleRequest, ServiceList,
    SetRegistryRequest, Settings, SettingsRequest, StackList, SteerRequest, TagImageRequest, TaskList,
    TokenReply, TransferProgress, UndoRequest, UpdateNodeRequest, VersionReply, VersionRequest,
};
use wire::proto::stream::Piece;

use crate::actor;
use crate::dispatch::Dispatcher;
use crate::leader::Parts;
use crate::registries::Registries;
use crate::streams::Streams;

/// Messages of one answer that wait for a slow client.
const ANSWERS: usize = 64;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service that users call.
#[derive(Clone, Debug)]
pub struct Api {
    parts: Parts,
    dispatcher: Dispatcher,
    streams: Streams,
    registries: Registries,
    /// Who asks, where that is known.
    by: Option<String>,
}

impl Api {
    pub(crate) fn new(parts: Parts, dispatcher: Dispatcher, streams: Streams) -> Self {
        Self { parts, dispatcher, streams, registries: Registries::default(), by: None }
    }

    /// The same, on behalf of whoever made this request.
    fn asked<T>(&self, request: &Request<T>) -> Self {
        let passed_on = request.metadata().get(actor::BY).and_then(|by| by.to_str().ok());
        let state = self.parts.store.state();
        let here = state.node(self.parts.node).map_or("this node", |node| node.name.as_str());
        let by = actor::actor(request.extensions().get::<Peer>(), passed_on, here);
        Self { by, ..self.clone() }
    }

    /// The state with every write that was acknowledged before this call.
    async fn state(&self) -> Result<State, Status> {
        self.parts.store.linearize().await.map_err(|error| Status::unavailable(error.to_string()))
    }

    async fn propose(&self, request: &str, commands: Vec<Command>) -> Result<Vec<Outcome>, Status> {
        let request =
            if request.is_empty() { None } else { Some(wire::request_id(request).map_err(malformed)?) };
        let at = self.parts.clock.now(&self.parts.store.state());
        let proposed =
            self.parts.store.propose(Proposal { at, request, by: self.by.clone(), commands }).await;
        tracing::debug!(target: "hop", hop = "accepted");
        proposed.map_err(|error| unanswered(&error))
    }

    /// The verdict on the last command of a request that was answered before. Whatever has to be found out before a change is
    /// proposed is not found out again for one that was made: it may come to something else now, or to nothing.
    fn answered(&self, state: &State, request: &str) -> Result<Option<Outcome>, Status> {
        if request.is_empty() {
            return Ok(None);
        }
        let request = wire::request_id(request).map_err(malformed)?;
        Ok(state.recorded(request).and_then(|recorded| recorded.outcomes.last().cloned()))
    }

    async fn propose_one(&self, request: &str, command: Command) -> Result<Done, Status> {
        let mut outcomes = self.propose(request, vec![command]).await?;
        let outcome = outcomes.pop().ok_or_else(|| Status::internal("a command without an outcome"))?;
        outcome.map_err(|rejected| refused(&rejected))
    }
}

/// A message that is not what it should be.
fn malformed(error: wire::Invalid) -> Status {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    Status::invalid_argument(text)
}

/// A change that is too large is the caller's to make smaller. Of any other, nobody can tell the outcome: the same request
/// may be sent again, and takes effect once.
fn unanswered(error: &ProposeError) -> Status {
    match error {
        ProposeError::TooLarge { .. } => Status::invalid_argument(error.to_string()),
        ProposeError::NotLeader { .. } | ProposeError::Unknown { .. } | ProposeError::Stopped => {
            Status::unavailable(error.to_string())
        }
    }
}

/// The status codes that clients turn into exit codes.
fn refused(rejected: &Rejected) -> Status {
    let text = rejected.to_string();
    match rejected {
        Rejected::NoStack(_)
        | Rejected::NoService(_)
        | Rejected::NoServiceId(_)
        | Rejected::NoTask(_)
        | Rejected::NoNode(_)
        | Rejected::NoImage(_)
        | Rejected::NoImageContent(_)
        | Rejected::NoRegistry(_)
        | Rejected::NoVersion(..)
        | Rejected::VersionGone { .. } => Status::not_found(text),
        Rejected::Changed { .. }
        | Rejected::Founded
        | Rejected::NodeNameTaken(_)
        | Rejected::OutOfSequence(_)
        | Rejected::AlreadyAssigned(_)
        | Rejected::ImageInUse { .. }
        | Rejected::ImageKept(_)
        | Rejected::HasTasks(_)
        | Rejected::StillRunning(_)
        | Rejected::NotItsRollout(..)
        | Rejected::NoRun(..)
        | Rejected::RunNotDone(..)
        | Rejected::NotDue(_)
        | Rejected::RunGoesOn { .. }
        | Rejected::NodeIsUp(_)
        | Rejected::CannotSteer { .. } => Status::aborted(text),
        Rejected::BadToken => Status::permission_denied(text),
        Rejected::NotFounded | Rejected::NodeUnavailable(_) => Status::unavailable(text),
        Rejected::NoSubnet
        | Rejected::Removing(_)
        | Rejected::NotWanted(_)
        | Rejected::DoesNotFit { .. }
        | Rejected::NotInPlace(..)
        | Rejected::NotItsNode(..)
        | Rejected::CannotScale(_)
        | Rejected::IsJob(_)
        | Rejected::NoJob(_)
        | Rejected::RunOnce(_)
        | Rejected::NothingToUndo(_)
        | Rejected::TooManyLabels
        | Rejected::TooManyRegistries
        | Rejected::RegistryTooLarge(_) => Status::failed_precondition(text),
    }
}

fn name(text: &str) -> Result<Name, Status> {
    text.parse().map_err(|error: model::InvalidName| Status::invalid_argument(error.to_string()))
}

fn image_name(text: &str) -> Result<ImageName, Status> {
    text.parse().map_err(|error: model::InvalidImageName| Status::invalid_argument(error.to_string()))
}

/// A name that is given to an image. One by digest would say what it stands for, whatever it is given to.
fn image_tag(text: &str) -> Result<ImageName, Status> {
    let name = image_name(text)?;
    if name.digest().is_some() {
        return Err(Status::invalid_argument(format!(
            "`{name}` is a digest's: an image is given a name with a tag"
        )));
    }
    Ok(name)
}

fn service_name(text: &str) -> Result<ServiceName, Status> {
    text.parse().map_err(|error: model::InvalidName| Status::invalid_argument(error.to_string()))
}

/// The answer to a change; `before` is the object's generation before it.
fn change(done: &Done, before: u64, removed: Vec<String>) -> ChangeReply {
    let (generation, changed) = match done {
        Done::At(generation) => (generation.0, true),
        Done::Changed | Done::Admitted(_) => (before, true),
        Done::Unchanged => (before, false),
    };
    ChangeReply { generation, changed, removed, warnings: Vec::new() }
}

/// The services of a deployment, of which there is one at least.
fn specs(
    stack: &Name,
    services: BTreeMap<String, wire::proto::model::ServiceSpec>,
) -> Result<Vec<(Name, ServiceSpec)>, Status> {
    let mut specs: Vec<(Name, ServiceSpec)> = Vec::new();
    for (service, spec) in services {
        affordable(&format!("{stack}/{service}"), spec.replicas)?;
        specs.push((name(&service)?, spec.try_into().map_err(malformed)?));
    }
    if specs.is_empty() {
        return Err(Status::invalid_argument(format!(
            "stack `{stack}` has no services; `gantry rm {stack}` removes a stack"
        )));
    }
    Ok(specs)
}

/// The same with what their images' names stand for.
fn declared(
    specs: Vec<(Name, ServiceSpec)>,
    images: &BTreeMap<ImageName, Digest>,
    keep_replicas: &[String],
) -> BTreeMap<Name, Declared> {
    let declared = |(name, spec): (Name, ServiceSpec)| {
        let image = images[&spec.task.image];
        let keep_replicas = keep_replicas.iter().any(|kept| kept == name.as_str());
        (name, Declared { spec, image, keep_replicas })
    };
    specs.into_iter().map(declared).collect()
}

/// Every slot costs a row, whoever asks for it.
fn affordable(service: &str, replicas: u32) -> Result<(), Status> {
    let most = model::MAX_REPLICAS;
    if replicas > most {
        let text = format!("`{service}={replicas}`: a service has {most} replicas at most");
        return Err(Status::invalid_argument(text));
    }
    Ok(())
}

#[tonic::async_trait]
impl Cluster for Api {
    type ConvergeStream = Answers<Progress>;
    type DrainedStream = Answers<DrainProgress>;
    type LogsStream = Answers<LogEntry>;
    type ImportImageStream = Answers<ImportProgress>;
    type CommitTaskStream = Answers<ImportProgress>;
    type PullImageStream = Answers<TransferProgress>;
    type PushImageStream = Answers<TransferProgress>;
    type SaveImageStream = Answers<SaveChunk>;
    type OpenStream = Answers<Piece>;

    async fn version(&self, _: Request<VersionRequest>) -> Result<Response<VersionReply>, Status> {
        let state = self.state().await?;
        Ok(Response::new(VersionReply {
            version: self.parts.version.to_owned(),
            cluster: state.cluster().map(|cluster| cluster.id.to_string()).unwrap_or_default(),
            leader: state.node(self.parts.node).map(|node| node.name.to_string()).unwrap_or_default(),
        }))
    }

    async fn deploy(&self, request: Request<DeployRequest>) -> Result<Response<ChangeReply>, Status> {
        tracing::debug!(target: "hop", hop = "asked");
        let api = self.asked(&request);
        let DeployRequest { request, stack, services, expected, keep_replicas } = request.into_inner();
        let stack = name(&stack)?;
        let specs = specs(&stack, services)?;
        let state = self.state().await?;
        let before = state.stack(&stack);
        let generation = state.generation_of(&stack).0;
        if let Some(outcome) = self.answered(&state, &request)? {
            let done = outcome.map_err(|rejected| refused(&rejected))?;
            return Ok(Response::new(change(&done, generation, Vec::new())));
        }
        let declared: BTreeSet<&Name> = specs.iter().map(|(service, _)| service).collect();
        let gone = before.into_iter().flat_map(|row| row.services.keys());
        let removed = gone.filter(|service| !declared.contains(service));
        let removed = removed.map(|service| format!("{stack}/{service}")).collect();
        let pins::Pinned { images, mut commands, warnings } = pins::pin_all(self, &state, &specs).await?;
        let services = self::declared(specs, &images, &keep_replicas);
        let expected = expected.map(model::LogIndex);
        commands.push(Command::Deploy { stack, services, expected });
        // The names and what is made from them, or neither: one entry of the log, and one answer.
        let outcome = api.propose(&request, commands).await?.pop();
        let done = outcome.ok_or_else(|| Status::internal("a command without an outcome"))?;
        let done = done.map_err(|rejected| refused(&rejected))?;
        Ok(Response::new(ChangeReply { warnings, ..change(&done, generation, removed) }))
    }

    async fn remove_stack(
        &self,
        request: Request<RemoveStackRequest>,
    ) -> Result<Response<ChangeReply>, Status> {
        let api = self.asked(&request);
        let RemoveStackRequest { request, stack } = request.into_inner();
        let stack = name(&stack)?;
        let done = api.propose_one(&request, Command::RemoveStack { stack }).await?;
        Ok(Response::new(change(&done, 0, Vec::new())))
    }

    async fn scale(&self, request: Request<ScaleRequest>) -> Result<Response<ChangeReply>, Status> {
        tracing::debug!(target: "hop", hop = "asked");
        let api = self.asked(&request);
        let ScaleRequest { request, services } = request.into_inner();
        let mut commands = Vec::new();
        for to in services {
            affordable(&to.service, to.replicas)?;
            let service = service_name(&to.service)?;
            commands.push(Command::Scale { service, replicas: to.replicas, expected: None });
        }
        // All or none: one that is misspelt must not leave the others half done.
        let state = self.state().await?;
        let mut reply = ChangeReply::default();
        for command in &commands {
            let Command::Scale { service, .. } = command else { continue };
            let Some((_, row)) = state.service_named(service) else {
                return Err(refused(&Rejected::NoService(service.clone())));
            };
            reply.generation = reply.generation.max(row.generation.0);
        }
        for outcome in api.propose(&request, commands).await? {
            let done = outcome.map_err(|rejected| refused(&rejected))?;
            let one = change(&done, 0, Vec::new());
            reply.changed |= one.changed;
            reply.generation = reply.generation.max(one.generation);
        }
        Ok(Response::new(reply))
    }

    async fn run_once(&self, request: Request<RunOnceRequest>) -> Result<Response<RunOnceReply>, Status> {
        tracing::debug!(target: "hop", hop = "asked");
        run::once(&self.asked(&request), request.into_inner()).await.map(Response::new)
    }

    async fn list_jobs(&self, request: Request<ListRequest>) -> Result<Response<JobList>, Status> {
        let state = self.state().await?;
        let now = self.parts.clock.now(&state);
        jobs::list(&state, &request.into_inner(), now).map(Response::new)
    }

    async fn run_job(&self, request: Request<JobRequest>) -> Result<Response<ChangeReply>, Status> {
        jobs::run(&self.asked(&request), request.into_inner()).await.map(Response::new)
    }

    async fn stop_job(&self, request: Request<JobRequest>) -> Result<Response<ChangeReply>, Status> {
        jobs::stop(&self.asked(&request), request.into_inner()).await.map(Response::new)
    }

    async fn converge(
        &self,
        request: Request<ConvergeRequest>,
    ) -> Result<Response<Self::ConvergeStream>, Status> {
        converge::answer(self, request.into_inner()).map(Response::new)
    }

    async fn list_stacks(&self, request: Request<ListRequest>) -> Result<Response<StackList>, Status> {
        Ok(Response::new(views::stacks(&self.state().await?, &request.into_inner())))
    }

    async fn list_services(&self, request: Request<ListRequest>) -> Result<Response<ServiceList>, Status> {
        views::services(&self.state().await?, &request.into_inner()).map(Response::new)
    }

    async fn list_tasks(&self, request: Request<ListRequest>) -> Result<Response<TaskList>, Status> {
        let state = self.state().await?;
        let now = self.parts.clock.now(&state);
        views::tasks(&state, &request.into_inner(), now).map(Response::new)
    }

    async fn list_nodes(&self, _: Request<ListRequest>) -> Result<Response<NodeList>, Status> {
        let state = self.state().await?;
        let leader = match *self.parts.store.leadership().borrow() {
            Leadership::Leader { .. } => Some(self.parts.node),
            Leadership::Follower { leader } => leader,
        };
        Ok(Response::new(views::nodes(&state, leader)))
    }

    async fn update_node(
        &self,
        request: Request<UpdateNodeRequest>,
    ) -> Result<Response<ChangeReply>, Status> {
        nodes::update(&self.asked(&request), request.into_inner()).await.map(Response::new)
    }

    async fn remove_node(&self, request: Request<NodeRequest>) -> Result<Response<ChangeReply>, Status> {
        nodes::remove(&self.asked(&request), request.into_inner()).await.map(Response::new)
    }

    async fn drained(
        &self,
        request: Request<DrainedRequest>,
    ) -> Result<Response<Self::DrainedStream>, Status> {
        nodes::drained(self, request.into_inner()).map(Response::new)
    }

    async fn inspect_node(&self, request: Request<InspectRequest>) -> Result<Response<InspectReply>, Status> {
        let state = self.state().await?;
        inspect::node_alone(&state, &request.into_inner().reference).map(Response::new)
    }

    async fn plan_rebalance(
        &self,
        _: Request<PlanRebalanceRequest>,
    ) -> Result<Response<RebalancePlan>, Status> {
        Ok(Response::new(rebalance::plan(&self.state().await?)))
    }

    async fn rebalance(&self, request: Request<RebalanceRequest>) -> Result<Response<ChangeReply>, Status> {
        rebalance::carry_out(&self.asked(&request), request.into_inner()).await.map(Response::new)
    }

    async fn get_settings(&self, _: Request<SettingsRequest>) -> Result<Response<Settings>, Status> {
        Ok(Response::new(settings::now(&self.state().await?)))
    }

    async fn put_settings(
        &self,
        request: Request<PutSettingsRequest>,
    ) -> Result<Response<ChangeReply>, Status> {
        settings::configure(&self.asked(&request), request.into_inner()).await.map(Response::new)
    }

    async fn inspect(&self, request: Request<InspectRequest>) -> Result<Response<InspectReply>, Status> {
        let state = self.state().await?;
        inspect::answer(&state, &request.into_inner().reference).map(Response::new)
    }

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        logs::answer(self, request.into_inner()).await.map(Response::new)
    }

    async fn open(
        &self,
        request: Request<Streaming<OpenInput>>,
    ) -> Result<Response<Self::OpenStream>, Status> {
        open::answer(self, request.into_inner()).await.map(Response::new)
    }

    async fn import_image(
        &self,
        request: Request<Streaming<ImportChunk>>,
    ) -> Result<Response<Self::ImportImageStream>, Status> {
        images::import(self.asked(&request), request.into_inner()).await.map(Response::new)
    }

    async fn commit_task(
        &self,
        request: Request<CommitRequest>,
    ) -> Result<Response<Self::CommitTaskStream>, Status> {
        commit::commit(self.asked(&request), request.into_inner()).await.map(Response::new)
    }

    async fn list_images(&self, _: Request<ListRequest>) -> Result<Response<ImageList>, Status> {
        Ok(Response::new(views::images(&self.state().await?)))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<ChangeReply>, Status> {
        let api = self.asked(&request);
        let RemoveImageRequest { request, name } = request.into_inner();
        let name = image_name(&name)?;
        let done = api.propose_one(&request, Command::RemoveImage { name }).await?;
        Ok(Response::new(change(&done, 0, Vec::new())))
    }

    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<TokenReply>, Status> {
        join::create_token(&self.asked(&request), request.into_inner()).await.map(Response::new)
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        join::join(self, request.into_inner()).await.map(Response::new)
    }

    async fn pull_image(
        &self,
        request: Request<PullImageRequest>,
    ) -> Result<Response<Self::PullImageStream>, Status> {
        transfers::pull(self.asked(&request), request.into_inner()).await.map(Response::new)
    }

    async fn push_image(
        &self,
        request: Request<PushImageRequest>,
    ) -> Result<Response<Self::PushImageStream>, Status> {
        transfers::push(self.clone(), request.into_inner()).await.map(Response::new)
    }

    async fn tag_image(&self, request: Request<TagImageRequest>) -> Result<Response<ChangeReply>, Status> {
        images::tag(&self.asked(&request), request.into_inner()).await.map(Response::new)
    }

    async fn save_image(
        &self,
        request: Request<SaveImageRequest>,
    ) -> Result<Response<Self::SaveImageStream>, Status> {
        transfers::save(self.clone(), request.into_inner()).await.map(Response::new)
    }

    async fn inspect_image(
        &self,
        request: Request<InspectRequest>,
    ) -> Result<Response<InspectReply>, Status> {
        transfers::inspect(self, request.into_inner()).await.map(Response::new)
    }

    async fn login_registry(
        &self,
        request: Request<LoginRegistryRequest>,
    ) -> Result<Response<LoginRegistryReply>, Status> {
        registries::login(&self.asked(&request), request.into_inner()).await.map(Response::new)
    }

    async fn logout_registry(
        &self,
        request: Request<RegistryRequest>,
    ) -> Result<Response<ChangeReply>, Status> {
        registries::logout(&self.asked(&request), request.into_inner()).await.map(Response::new)
    }

    async fn set_registry(
        &self,
        request: Request<SetRegistryRequest>,
    ) -> Result<Response<ChangeReply>, Status> {
        registries::set(&self.asked(&request), request.into_inner()).await.map(Response::new)
    }

    async fn remove_registry(
        &self,
        request: Request<RegistryRequest>,
    ) -> Result<Response<ChangeReply>, Status> {
        registries::remove(&self.asked(&request), request.into_inner()).await.map(Response::new)
    }

    async fn plan(&self, request: Request<DeployRequest>) -> Result<Response<PlanReply>, Status> {
        plan::answer(self, request.into_inner()).await.map(Response::new)
    }

    async fn rollout_status(
        &self,
        request: Request<RolloutRequest>,
    ) -> Result<Response<RolloutReply>, Status> {
        let state = self.state().await?;
        let now = self.parts.clock.now(&state);
        rollouts::status(&state, &request.into_inner(), now).map(Response::new)
    }

    async fn rollout_history(
        &self,
        request: Request<RolloutRequest>,
    ) -> Result<Response<HistoryReply>, Status> {
        rollouts::history(&self.state().await?, &request.into_inner()).map(Response::new)
    }

    async fn undo(&self, request: Request<UndoRequest>) -> Result<Response<ChangeReply>, Status> {
        rollouts::undo(&self.asked(&request), request.into_inner()).await.map(Response::new)
    }

    async fn restart(&self, request: Request<RestartRequest>) -> Result<Response<ChangeReply>, Status> {
        rollouts::restart(&self.asked(&request), request.into_inner()).await.map(Response::new)
    }

    async fn steer(&self, request: Request<SteerRequest>) -> Result<Response<ChangeReply>, Status> {
        rollouts::steer(&self.asked(&request), request.into_inner()).await.map(Response::new)
    }

    async fn list_registries(&self, _: Request<ListRequest>) -> Result<Response<RegistryList>, Status> {
        Ok(Response::new(views::registries(&self.state().await?)))
    }
}
