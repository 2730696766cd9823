//! One request over a raw socket, with file descriptors beside it. hyper can't send those.
//!
//! Speaks as much HTTP/1.1 as Cloud Hypervisor does: a sized body each way, or none.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncRead, AsyncReadExt, Interest};
use tokio::net::UnixStream;

use crate::client::ANSWER_LIMIT;
use crate::exchange::Broken;
use crate::request::{Method, Request};

/// The most descriptors of one request.
const MOST_FDS: usize = 64;
/// The longest head of an answer.
const HEAD: usize = 16 * 1024;

/// Sends `request` with `fds` and returns the answer's status and body.
pub(crate) async fn exchange(
    socket: &Path,
    request: &Request,
    body: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<(u16, Vec<u8>), Broken> {
    if fds.len() > MOST_FDS {
        let reason = "too many descriptors";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason).into());
    }
    let mut stream = UnixStream::connect(socket).await?;
    let message = frame(request, body);
    send(&stream, &message, fds).await?;
    receive(&mut stream).await
}

fn frame(request: &Request, body: &[u8]) -> Vec<u8> {
    let method = match request.method {
        Method::Get => "GET",
        Method::Put => "PUT",
    };
    let head = format!(
        "{method} {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        request.path(),
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The descriptors travel with the first byte.
async fn send(stream: &UnixStream, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut sent = 0;
    while let Some(rest) = message.get(sent..).filter(|rest| !rest.is_empty()) {
        let beside = if sent == 0 { fds } else { &[] };
        sent += stream
            .async_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
                let mut ancillary = SendAncillaryBuffer::new(&mut space);
                if !beside.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(beside)) {
                    return Err(io::Error::from(io::ErrorKind::InvalidInput));
                }
                let flags = SendFlags::NOSIGNAL;
                Ok(sendmsg(
                    stream,
                    &[IoSlice::new(rest)],
                    &mut ancillary,
                    flags,
                )?)
            })
            .await?;
    }
    Ok(())
}

/// Reads an answer: its status and its body.
pub(crate) async fn receive<S>(stream: &mut S) -> Result<(u16, Vec<u8>), Broken>
where
    S: AsyncRead + Unpin,
{
    let mut bytes = Vec::new();
    let body_start = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if bytes.len() > HEAD {
            return Err(bad("the answer's head is too long").into());
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(cut().into());
        }
    };
    let (status, length) = head(bytes.get(..body_start).unwrap_or_default())?;
    if length > ANSWER_LIMIT {
        return Err(Broken::TooLarge);
    }
    let mut body = bytes.split_off(body_start);
    while body.len() < length {
        if stream.read_buf(&mut body).await? == 0 {
            return Err(cut().into());
        }
    }
    body.truncate(length);
    Ok((status, body))
}

/// The status and the body's length.
fn head(head: &[u8]) -> io::Result<(u16, usize)> {
    let text = std::str::from_utf8(head).map_err(|_| bad("the answer's head is no text"))?;
    let mut lines = text.split("\r\n");
    let status = lines
        .next()
        .filter(|line| line.starts_with("HTTP/1."))
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| bad("the answer has no status"))?;
    for line in lines {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            let length = value
                .trim()
                .parse()
                .map_err(|_| bad("the answer's length is no number"))?;
            return Ok((status, length));
        }
    }
    Ok((status, 0))
}

fn cut() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

fn bad(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request;

    #[test]
    fn frames_a_request() {
        let framed = frame(&request::vm_remove_device("d"), b"{}");
        let text = String::from_utf8(framed).unwrap();
        assert!(text.starts_with("PUT /api/v1/vm.remove-device HTTP/1.1\r\n"));
        assert!(text.ends_with("Content-Length: 2\r\n\r\n{}"));
    }

    #[test]
    fn reads_heads() {
        let answer = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-length: 12\r\n\r\n";
        assert_eq!(head(answer).unwrap(), (200, 12));
        assert_eq!(head(b"HTTP/1.1 204 \r\n\r\n").unwrap(), (204, 0));
        for bad in [
            &b"nonsense\r\n\r\n"[..],
            b"\xff\r\n\r\n",
            b"HTTP/1.1 200\r\nContent-Length: -1\r\n",
        ] {
            head(bad).unwrap_err();
        }
    }
}
