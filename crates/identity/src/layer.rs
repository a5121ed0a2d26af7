//! The policy in front of a tonic server.

use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::Either;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::{Denied, Membership, Peer, authorise};

/// The layer for `tonic::transport::Server::layer`: a call that the policy denies does not reach the
/// services, and none of its body is read.
#[derive(Clone)]
pub struct Authorise {
    membership: Arc<dyn Membership>,
}

/// A service behind [`Authorise`].
#[derive(Clone)]
pub struct Authorised<S> {
    inner: S,
    membership: Arc<dyn Membership>,
}

impl Authorise {
    pub fn new(membership: Arc<dyn Membership>) -> Self {
        Self { membership }
    }
}

impl<S> Layer<S> for Authorise {
    type Service = Authorised<S>;

    fn layer(&self, inner: S) -> Authorised<S> {
        Authorised { inner, membership: self.membership.clone() }
    }
}

impl<S, B> Service<Request<B>> for Authorised<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // Every listener of ours tells the peer. A request without one came by another way, and that way is
        // not trusted.
        let unknown = Peer::Joining;
        let peer = request.extensions().get::<Peer>().unwrap_or(&unknown);
        match authorise(request.uri().path(), peer, self.membership.as_ref()) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(denied) => {
                tracing::info!(%peer, %denied, "a call was denied");
                Either::Right(ready(Ok(status(&denied).into_http())))
            }
        }
    }
}

fn status(denied: &Denied) -> Status {
    match denied {
        Denied::NoCertificate { .. } => Status::unauthenticated(denied.to_string()),
        Denied::NoRule { .. } | Denied::NotAMember { .. } | Denied::NotAllowed { .. } => {
            Status::permission_denied(denied.to_string())
        }
    }
}

impl fmt::Debug for Authorise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorise").finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for Authorised<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorised").finish_non_exhaustive()
    }
}
