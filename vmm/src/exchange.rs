//! One request and its answer over one connection, by hyper. Knows neither sockets nor deadlines nor what
//! the answer means: a connection goes in, a status and a body come out.

use std::convert::Infallible;
use std::io;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::client::ANSWER_LIMIT;
use crate::request::{Method, Request};

/// What one attempt came to.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// An answer, whatever its status.
    Answer { status: u16, body: Bytes },
    /// The server is full: nothing was done.
    Busy,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The connection failed, ended early, or spoke no HTTP.
    Connection(io::Error),
    /// The answer is larger than [`ANSWER_LIMIT`].
    TooLarge,
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Connection(error)
    }
}

/// Sends `request` with `body` over `stream`, and reads the answer. Dropping it closes the connection.
pub(crate) async fn exchange<S>(
    stream: S,
    request: &Request,
    body: Bytes,
) -> Result<Attempt, Broken>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = request.name;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let message = message(request, body)?;
    let exchange = async {
        let answer = sender.send_request(message).await?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_LIMIT)
            .collect()
            .await;
        Ok((status, body))
    };
    // Driven here rather than in a task, so that dropping the call closes the connection.
    let drive = async {
        if let Err(error) = connection.await {
            tracing::trace!(%error, call = name, "connection ended");
        }
        std::future::pending::<Infallible>().await
    };
    let outcome: hyper::Result<_> = tokio::select! {
        biased;
        outcome = exchange => outcome,
        never = drive => match never {},
    };
    match outcome {
        Ok((503, _)) => Ok(Attempt::Busy),
        Ok((status, Ok(body))) => Ok(Attempt::Answer {
            status,
            body: body.to_bytes(),
        }),
        Ok((_, Err(error))) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Broken::TooLarge)
        }
        Ok((_, Err(error))) => Err(io::Error::other(error).into()),
        Err(error) if turned_away(&error, request.method) => Ok(Attempt::Busy),
        Err(error) => Err(io::Error::other(error).into()),
    }
}

/// Whether Cloud Hypervisor closed the connection without reading the request: it answers the
/// eleventh connection 503 unasked and closes it, which hyper sees as a cancelled request or a broken
/// pipe. A connection that is reset may have done what it was asked, so only a question is asked again.
fn turned_away(error: &hyper::Error, method: Method) -> bool {
    use std::error::Error as _;
    let kind = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .map(io::Error::kind);
    error.is_canceled()
        || kind == Some(io::ErrorKind::BrokenPipe)
        || (kind == Some(io::ErrorKind::ConnectionReset) && method == Method::Get)
}

fn message(request: &Request, body: Bytes) -> io::Result<http::Request<Full<Bytes>>> {
    let method = match request.method {
        Method::Get => http::Method::GET,
        Method::Put => http::Method::PUT,
    };
    let mut message = http::Request::builder()
        .method(method)
        .uri(request.path())
        .header(http::header::HOST, "localhost");
    if !body.is_empty() {
        message = message.header(http::header::CONTENT_TYPE, "application/json");
    }
    message.body(Full::new(body)).map_err(io::Error::other)
}
