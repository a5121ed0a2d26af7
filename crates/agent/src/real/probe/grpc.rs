//! The gRPC health checking protocol (`grpc/doc/health-checking.md`).

use std::net::Ipv4Addr;
use std::time::Duration;

use tonic::Request;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

use crate::real::failure;

const METHOD: &str = "/grpc.health.v1.Health/Check";

/// An answer is one small number.
const ANSWER: usize = 1024;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    /// Empty asks for the server as a whole.
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    /// An enumeration on the wire; see [`word`].
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

fn word(status: i32) -> &'static str {
    match status {
        SERVING => "SERVING",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}

/// SERVING is healthy.
pub(super) async fn check(
    address: Ipv4Addr,
    port: u16,
    service: String,
    most: Duration,
) -> Result<String, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}:{port}"));
    let endpoint = endpoint.map_err(|error| failure("no address", &error).0)?.connect_timeout(most);
    let channel = endpoint.connect().await;
    let channel = channel.map_err(|error| failure(&format!("cannot connect to port {port}"), &error).0)?;
    let mut client = Grpc::new(channel).max_decoding_message_size(ANSWER);
    client.ready().await.map_err(|error| failure("the connection broke", &error).0)?;
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let request = Request::new(HealthCheckRequest { service });
    let answered = client.unary(request, PathAndQuery::from_static(METHOD), codec).await;
    let answer =
        answered.map_err(|status| format!("{:?}: {}", status.code(), status.message()))?.into_inner();
    let word = word(answer.status).to_owned();
    if answer.status == SERVING { Ok(word) } else { Err(word) }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::task::{Context, Poll};

    use futures::FutureExt as _;
    use futures::future::{BoxFuture, Ready, ready};
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::body::Body;
    use tonic::codegen::{Service, http};
    use tonic::server::{NamedService, UnaryService};
    use tonic::transport::Server;
    use tonic::{Response, Status};

    use super::*;

    /// A server with two services, of which one serves.
    #[derive(Clone)]
    struct Health;

    impl NamedService for Health {
        const NAME: &'static str = "grpc.health.v1.Health";
    }

    impl UnaryService<HealthCheckRequest> for Health {
        type Response = HealthCheckResponse;
        type Future = Ready<Result<Response<HealthCheckResponse>, Status>>;

        fn call(&mut self, request: Request<HealthCheckRequest>) -> Self::Future {
            ready(match request.into_inner().service.as_str() {
                "" | "shop" => Ok(Response::new(HealthCheckResponse { status: 1 })),
                "store" => Ok(Response::new(HealthCheckResponse { status: 2 })),
                "odd" => Ok(Response::new(HealthCheckResponse { status: 77 })),
                _ => Err(Status::not_found("no such service")),
            })
        }
    }

    impl Service<http::Request<Body>> for Health {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<Body>) -> Self::Future {
            async move {
                let codec = ProstCodec::<HealthCheckResponse, HealthCheckRequest>::default();
                Ok(tonic::server::Grpc::new(codec).unary(Health, request).await)
            }
            .boxed()
        }
    }

    #[tokio::test]
    async fn serving_is_healthy() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve =
            Server::builder().add_service(Health).serve_with_incoming(TcpListenerStream::new(listener));
        let ask = async {
            let mut told = Vec::new();
            for service in ["", "shop", "store", "odd", "elsewhere"] {
                let most = Duration::from_secs(10);
                told.push(check(Ipv4Addr::LOCALHOST, port, service.to_owned(), most).await);
            }
            told
        };
        let told = tokio::select! {
            served = serve => panic!("a server serves until it is dropped: {served:?}"),
            told = ask => told,
        };
        let expected = [
            Ok("SERVING"),
            Ok("SERVING"),
            Err("NOT_SERVING"),
            Err("UNKNOWN"),
            Err("NotFound: no such service"),
        ];
        let told: Vec<_> = told.iter().map(|told| told.as_deref().map_err(String::as_str)).collect();
        assert_eq!(told, expected);
        let refused = check(Ipv4Addr::LOCALHOST, port, String::new(), Duration::from_secs(10)).await;
        assert!(refused.unwrap_err().starts_with(&format!("cannot connect to port {port}")));
    }
}
