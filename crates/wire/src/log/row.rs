//! Rows of the tables, as a snapshot has them.

use std::sync::Arc;

use model::{ClusterId, LogIndex, Name, NodeId, ServiceId, SpecVersion, Strategy, Template, Timestamp};
use state::{Cluster, NodeRow, Recorded, Row, Service, Stack, Tag, Token};

use super::command::node_prefix_of;
use super::outcome::outcome;
use super::{FORMAT, readable};
use crate::invalid::optional;
use crate::proto::log as proto;
use crate::proto::log::row::{self as of, Kind};
use crate::proto::model as nouns;
use crate::{Field, Invalid, request_id, request_text};

impl From<&Row> for proto::Row {
    fn from(row: &Row) -> Self {
        let kind = match row {
            Row::Head { applied, time, last_node, last_service } => Kind::Head(of::Head {
                format: FORMAT,
                applied: applied.0,
                time: time.0,
                last_node: *last_node,
                last_service: *last_service,
            }),
            Row::Cluster(row) => Kind::Cluster(cluster_row(row)),
            Row::Token(digest, Token { role, expires }) => Kind::Token(of::Token {
                digest: digest.to_vec(),
                role: nouns::Role::from(*role).into(),
                expires: expires.0,
            }),
            Row::Node(id, row) => Kind::Node(node_row(*id, row)),
            Row::Stack(name, row) => Kind::Stack(stack_row(name, row)),
            Row::Service(id, row) => Kind::Service(service_row(*id, row)),
            Row::Task(id, row) => Kind::Task(of::Task { id: Some(id.into()), task: Some((&**row).into()) }),
            Row::Image(digest, row) => {
                Kind::Image(of::Image { digest: digest.to_string(), image: Some((&**row).into()) })
            }
            Row::Tag(name, Tag { image, asked, automatic }) => Kind::Tag(of::Tag {
                name: name.to_string(),
                image: image.to_string(),
                asked: asked.map(|asked| asked.0),
                automatic: *automatic,
            }),
            Row::Registry(name, row) => {
                Kind::Registry(of::Registry { name: name.to_string(), registry: Some((&**row).into()) })
            }
            Row::Request(id, Recorded { at, outcomes }) => Kind::Request(of::Request {
                id: request_text(*id),
                at: at.0,
                outcomes: outcomes.iter().map(Into::into).collect(),
            }),
        };
        Self { kind: Some(kind) }
    }
}

fn cluster_row(row: &Cluster) -> of::Cluster {
    let Cluster { id, range, node_prefix, authority, strategy } = row;
    of::Cluster {
        id: id.to_string(),
        range: Some(range.into()),
        node_prefix: (*node_prefix).into(),
        authority: Some(authority.into()),
        strategy: nouns::Strategy::from(*strategy).into(),
    }
}

fn node_row(id: NodeId, row: &NodeRow) -> of::Node {
    let NodeRow { node, next_address, next_port, promised, key } = row;
    of::Node {
        id: id.0,
        node: Some((&**node).into()),
        next_address: *next_address,
        next_port: (*next_port).into(),
        promised: Some((*promised).into()),
        key: key.map(|digest| digest.to_vec()),
    }
}

fn stack_row(name: &Name, row: &Stack) -> of::Stack {
    let Stack { generation, deployed, services, removing } = row;
    of::Stack {
        name: name.to_string(),
        generation: generation.0,
        deployed: deployed.0,
        services: services.iter().map(|(name, id)| (name.to_string(), id.0)).collect(),
        removing: *removing,
    }
}

fn service_row(id: ServiceId, row: &Service) -> of::Service {
    let Service {
        name,
        spec,
        version,
        last_version,
        templates,
        rollout,
        job,
        generation,
        created,
        next_sequence,
        removing,
    } = row;
    of::Service {
        id: id.0,
        name: name.to_string(),
        spec: Some(spec.into()),
        version: version.0,
        templates: templates.iter().map(|(version, template)| (version.0, template.into())).collect(),
        generation: generation.0,
        created: created.0,
        next_sequence: *next_sequence,
        removing: *removing,
        last_version: last_version.0,
        rollout: rollout.as_ref().map(Into::into),
        job: job.as_ref().map(Into::into),
    }
}

impl TryFrom<proto::Row> for Row {
    type Error = Invalid;

    fn try_from(row: proto::Row) -> Result<Self, Invalid> {
        let proto::Row { kind } = row;
        match Field("Row", "kind").kind(kind)? {
            Kind::Head(head) => head.try_into(),
            Kind::Cluster(cluster) => cluster.try_into(),
            Kind::Token(token) => token.try_into(),
            Kind::Node(node) => node.try_into(),
            Kind::Stack(stack) => stack.try_into(),
            Kind::Service(service) => service.try_into(),
            Kind::Task(of::Task { id, task }) => {
                let at = |field| Field("Row.Task", field);
                Ok(Self::Task(at("id").required(id)?, Arc::new(at("task").required(task)?)))
            }
            Kind::Image(of::Image { digest, image }) => {
                let at = |field| Field("Row.Image", field);
                Ok(Self::Image(at("digest").parsed(&digest)?, Arc::new(at("image").required(image)?)))
            }
            Kind::Tag(of::Tag { name, image, asked, automatic }) => {
                let at = |field| Field("Row.Tag", field);
                let image = at("image").parsed(&image)?;
                Ok(Self::Tag(
                    at("name").parsed(&name)?,
                    Tag { image, asked: asked.map(Timestamp), automatic },
                ))
            }
            Kind::Registry(of::Registry { name, registry }) => {
                let at = |field| Field("Row.Registry", field);
                Ok(Self::Registry(at("name").parsed(&name)?, Arc::new(at("registry").required(registry)?)))
            }
            Kind::Request(request) => request.try_into(),
        }
    }
}

impl TryFrom<of::Head> for Row {
    type Error = Invalid;

    fn try_from(head: of::Head) -> Result<Self, Invalid> {
        let of::Head { format, applied, time, last_node, last_service } = head;
        readable(format, Field("Row.Head", "format"))?;
        Ok(Self::Head { applied: LogIndex(applied), time: Timestamp(time), last_node, last_service })
    }
}

impl TryFrom<of::Cluster> for Row {
    type Error = Invalid;

    fn try_from(cluster: of::Cluster) -> Result<Self, Invalid> {
        let of::Cluster { id, range, node_prefix, authority, strategy } = cluster;
        let at = |field| Field("Row.Cluster", field);
        let range = at("range").required(range)?;
        Ok(Self::Cluster(Arc::new(Cluster {
            id: ClusterId(at("id").hex(&id)?),
            range,
            node_prefix: node_prefix_of(at("node_prefix"), range, node_prefix)?,
            authority: at("authority").required(authority)?,
            strategy: match strategy {
                0 => Strategy::default(),
                strategy => at("strategy").choice::<nouns::Strategy, _>(strategy)?,
            },
        })))
    }
}

impl TryFrom<of::Token> for Row {
    type Error = Invalid;

    fn try_from(token: of::Token) -> Result<Self, Invalid> {
        let of::Token { digest, role, expires } = token;
        let at = |field| Field("Row.Token", field);
        let role = at("role").choice::<nouns::Role, _>(role)?;
        Ok(Self::Token(at("digest").hash(digest)?, Token { role, expires: Timestamp(expires) }))
    }
}

impl TryFrom<of::Node> for Row {
    type Error = Invalid;

    fn try_from(node: of::Node) -> Result<Self, Invalid> {
        let of::Node { id, node, next_address, next_port, promised, key } = node;
        let at = |field| Field("Row.Node", field);
        let row = NodeRow {
            node: Arc::new(at("node").required(node)?),
            next_address,
            next_port: at("next_port").narrowed(next_port)?,
            promised: at("promised").present(promised)?.into(),
            key: key.map(|digest| at("key").hash(digest)).transpose()?,
        };
        Ok(Self::Node(NodeId(id), Arc::new(row)))
    }
}

impl TryFrom<of::Stack> for Row {
    type Error = Invalid;

    fn try_from(stack: of::Stack) -> Result<Self, Invalid> {
        let of::Stack { name, generation, deployed, services, removing } = stack;
        let at = |field| Field("Row.Stack", field);
        let service = |(name, id): (String, u64)| -> Result<(Name, ServiceId), Invalid> {
            Ok((at("services").parsed(&name)?, ServiceId(id)))
        };
        let row = Stack {
            generation: LogIndex(generation),
            deployed: Timestamp(deployed),
            services: services.into_iter().map(service).collect::<Result<_, _>>()?,
            removing,
        };
        Ok(Self::Stack(at("name").parsed(&name)?, Arc::new(row)))
    }
}

impl TryFrom<of::Service> for Row {
    type Error = Invalid;

    fn try_from(service: of::Service) -> Result<Self, Invalid> {
        let of::Service {
            id,
            name,
            spec,
            version,
            templates,
            generation,
            created,
            next_sequence,
            removing,
            last_version,
            rollout,
            job,
        } = service;
        let at = |field| Field("Row.Service", field);
        let template =
            |(version, template): (u64, nouns::Template)| -> Result<(SpecVersion, Template), Invalid> {
                Ok((SpecVersion(version), Template::try_from(template)?))
            };
        let row = Service {
            name: at("name").parsed(&name)?,
            spec: at("spec").required(spec)?,
            version: SpecVersion(version),
            last_version: SpecVersion(if last_version == 0 { version } else { last_version }),
            templates: templates.into_iter().map(template).collect::<Result<_, _>>()?,
            rollout: optional(rollout)?,
            job: optional(job)?,
            generation: LogIndex(generation),
            created: Timestamp(created),
            next_sequence,
            removing,
        };
        Ok(Self::Service(ServiceId(id), Arc::new(row)))
    }
}

impl TryFrom<of::Request> for Row {
    type Error = Invalid;

    fn try_from(request: of::Request) -> Result<Self, Invalid> {
        let of::Request { id, at, outcomes } = request;
        let id = request_id(&id)?;
        let outcomes = outcomes.into_iter().map(outcome).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::Request(id, Recorded { at: Timestamp(at), outcomes: Arc::new(outcomes) }))
    }
}
