//! What `build.rs` wrote. The modules mirror the packages, since generated code names other packages relatively.
#![allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::or_fun_call,
    clippy::uninlined_format_args,
    elided_lifetimes_in_paths,
    missing_debug_implementations,
    unreachable_pub,
    unused_lifetimes,
    reason = "which of these generated code breaks is up to the generator's version"
)]

pub mod agent {
    pub mod v1 {
        tonic::include_proto!("gantry.agent.v1");
    }
}

pub mod api {
    pub mod v1 {
        tonic::include_proto!("gantry.api.v1");
    }
}

pub mod log {
    pub mod v1 {
        tonic::include_proto!("gantry.log.v1");
    }
}

pub mod model {
    pub mod v1 {
        tonic::include_proto!("gantry.model.v1");
    }
}

pub mod raft {
    pub mod v1 {
        tonic::include_proto!("gantry.raft.v1");
    }
}

pub mod stream {
    pub mod v1 {
        tonic::include_proto!("gantry.stream.v1");
    }
}
