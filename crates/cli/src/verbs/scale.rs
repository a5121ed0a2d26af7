//! `gantry scale`.

use std::collections::BTreeSet;
use std::str::FromStr;

use model::{InvalidName, MAX_REPLICAS, ServiceName};
use tokio::time::Instant;
use wire::proto::api::{ConvergeRequest, ScaleRequest, ScaleTo};

use crate::cluster::{Effect, Operation, request};
use crate::failure::Failure;
use crate::session::Session;
use crate::settle::{Accepted, settle};
use crate::verbs::Wait;

/// Change how many replicas services have, and wait until they run
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry scale hello/web=9
  gantry scale hello/web=9 hello/worker=0")]
pub struct Scale {
    /// A service, as STACK/SERVICE, and its number of replicas
    #[arg(value_name = "SERVICE=N", required = true)]
    services: Vec<Replicas>,
    #[command(flatten)]
    wait: Wait,
}

/// One service and how many replicas it is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Replicas {
    service: ServiceName,
    count: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum InvalidReplicas {
    #[error("write it as STACK/SERVICE=N, for example hello/web=3")]
    NoCount,
    #[error(transparent)]
    Service(#[from] InvalidName),
    #[error("`{0}` is not a number of replicas")]
    Count(String),
    #[error("a service has {} replicas at most", MAX_REPLICAS)]
    TooMany,
}

impl FromStr for Replicas {
    type Err = InvalidReplicas;

    fn from_str(text: &str) -> Result<Self, InvalidReplicas> {
        let (service, count) = text.rsplit_once('=').ok_or(InvalidReplicas::NoCount)?;
        let service = service.parse()?;
        if count.is_empty() || !count.bytes().all(|c| c.is_ascii_digit()) {
            return Err(InvalidReplicas::Count(
                count.chars().take(40).flat_map(char::escape_debug).collect(),
            ));
        }
        // Only digits are left, so what does not fit is too large.
        let count = count.parse().ok().filter(|count| *count <= MAX_REPLICAS);
        Ok(Self { service, count: count.ok_or(InvalidReplicas::TooMany)? })
    }
}

impl Scale {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let begun = Instant::now();
        let targets: Vec<String> = self.services.iter().map(|to| to.service.to_string()).collect();
        let operand = targets.join(", ");
        let look = look(&self.services);
        let mut cluster = session.cluster()?;
        session.if_interrupted(format!("the change may have been made; `{look}` shows it"));
        let to = |to: &Replicas| ScaleTo { service: to.service.to_string(), replicas: to.count };
        let scale = ScaleRequest { request: request(), services: self.services.iter().map(to).collect() };
        let operation = Operation { operand: &operand, effect: Effect::Changes, list: "gantry services" };
        let sent = cluster.call(operation, self.wait.timeout, |mut client| {
            let scale = scale.clone();
            async move { client.scale(scale).await }
        });
        let reply = sent.await?;
        let goal = ConvergeRequest { targets, gone: false, generation: reply.generation };
        settle(session, &mut cluster, Accepted { operand, look, goal }, self.wait, begun).await
    }
}

/// The command that shows the tasks of all these services.
fn look(services: &[Replicas]) -> String {
    let stacks: BTreeSet<_> = services.iter().map(|to| &to.service.stack).collect();
    match (services, stacks.first()) {
        ([one], _) => format!("gantry ps {}", one.service),
        (_, Some(stack)) if stacks.len() == 1 => format!("gantry ps {stack}"),
        (_, _) => "gantry ps".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(texts: &[&str]) -> Vec<Replicas> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_service_is_given_a_number_of_replicas() {
        let to: Replicas = "hello/web=9".parse().unwrap();
        assert_eq!((to.service.to_string().as_str(), to.count), ("hello/web", 9));
        for (bad, why) in [
            ("hello/web", "write it as STACK/SERVICE=N, for example hello/web=3"),
            ("web=1", "`web` is not a service: write it as STACK/SERVICE"),
            ("hello/web=", "`` is not a number of replicas"),
            ("hello/web=-1", "`-1` is not a number of replicas"),
            ("hello/web=1e9", "`1e9` is not a number of replicas"),
            ("hello/web=100001", "a service has 100000 replicas at most"),
            ("hello/web=99999999999999999999", "a service has 100000 replicas at most"),
        ] {
            assert_eq!(bad.parse::<Replicas>().unwrap_err().to_string(), why, "{bad}");
        }
    }

    #[test]
    fn the_way_to_look_covers_all_that_is_scaled() {
        assert_eq!(look(&parsed(&["hello/web=1"])), "gantry ps hello/web");
        assert_eq!(look(&parsed(&["hello/web=1", "hello/db=1"])), "gantry ps hello");
        assert_eq!(look(&parsed(&["a/web=1", "b/web=1"])), "gantry ps");
    }
}
