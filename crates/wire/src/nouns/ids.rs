//! Identities.

use model::ServiceId;

use crate::Invalid;
use crate::proto::model as proto;

impl From<model::TaskId> for proto::TaskId {
    fn from(id: model::TaskId) -> Self {
        let model::TaskId { service, slot, sequence } = id;
        Self { service: service.0, slot, sequence }
    }
}

impl From<&model::TaskId> for proto::TaskId {
    fn from(id: &model::TaskId) -> Self {
        (*id).into()
    }
}

impl TryFrom<proto::TaskId> for model::TaskId {
    type Error = Invalid;

    fn try_from(id: proto::TaskId) -> Result<Self, Invalid> {
        let proto::TaskId { service, slot, sequence } = id;
        Ok(Self { service: ServiceId(service), slot, sequence })
    }
}
