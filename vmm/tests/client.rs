//! The client against a peer that misbehaves in every way that matters.
#![expect(clippy::unwrap_used, reason = "a failure here is the test's failure")]

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use knest_vmm::client::{BODY_LIMIT, Client, Timeouts};
use knest_vmm::config::{Payload, VmConfig};
use knest_vmm::error::{Error, Kind};
use knest_vmm::request;
use knest_vmm::testing::{Reply, Stub};

/// A client with short patience, and a directory for its socket.
fn client() -> (tempfile::TempDir, PathBuf, Client) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let short = Duration::from_millis(200);
    let timeouts = Timeouts {
        ping: short,
        query: short,
        change: short,
        long: short,
        transfer: short,
    };
    let client = Client::with_timeouts(&path, timeouts);
    (dir, path, client)
}

async fn ping_error(reply: Reply) -> Error {
    let (_dir, path, client) = client();
    let _stub = Stub::listen(&path, move |_| reply.clone()).unwrap();
    client.ping().await.unwrap_err()
}

#[tokio::test]
async fn a_good_answer_is_read() {
    let (_dir, path, client) = client();
    let stub = Stub::listen(&path, |_| Reply::ping("53.0.0")).unwrap();
    assert_eq!(client.ping().await.unwrap().version, "53.0.0");
    let received = stub.received();
    assert_eq!(
        (received[0].method.as_str(), received[0].path.as_str()),
        ("GET", "/api/v1/vmm.ping")
    );
}

#[tokio::test]
async fn no_answer_ends_in_time() {
    let error = ping_error(Reply::Silence).await;
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    assert_eq!(error.kind(), Kind::Busy);
}

#[tokio::test]
async fn half_an_answer_is_a_broken_connection() {
    for raw in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"version\""[..],
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"this is not HTTP\r\n\r\n",
        b"\x00\xff\x00\xff",
    ] {
        let error = ping_error(Reply::Raw(raw.to_vec())).await;
        assert!(matches!(error, Error::Transport { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_slow_answer_is_waited_for_and_not_for_ever() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n{\"version\":\"53.0.0\",\"a\":1}";
    let slow = |pause| Reply::Slow(answer.to_vec(), pause);
    // Each byte comes in time, and all of them don't.
    let error = ping_error(slow(Duration::from_millis(50))).await;
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let _stub = Stub::listen(&path, move |_| slow(Duration::from_millis(1))).unwrap();
    let patient = Timeouts {
        ping: Duration::from_secs(20),
        ..Timeouts::default()
    };
    let client = Client::with_timeouts(&path, patient);
    assert_eq!(client.ping().await.unwrap().version, "53.0.0");
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec();
    let (_dir, path, _) = client();
    let _stub = Stub::listen(&path, move |_| {
        Reply::Endless(head.clone(), vec![b' '; 65536])
    })
    .unwrap();
    let error = Client::new(&path).info().await.unwrap_err();
    assert!(
        matches!(error, Error::AnswerTooLarge { .. } | Error::Timeout { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_answer_that_is_no_json_is_shown() {
    let error = ping_error(Reply::Answer(200, b"<html>".to_vec())).await;
    assert!(
        matches!(&error, Error::Decode { excerpt, .. } if excerpt == "<html>"),
        "{error:?}"
    );
    let error = ping_error(Reply::Answer(200, b"[".repeat(100_000))).await;
    assert!(matches!(error, Error::Decode { .. }), "{error:?}");
}

#[tokio::test]
async fn a_refusal_carries_its_chain() {
    let chain = [
        "Error from API",
        "The VM could not boot",
        "VM is not created",
    ];
    let error = ping_error(Reply::error(500, &chain)).await;
    assert_eq!(error.kind(), Kind::NotCreated);
    let Error::Api { source, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(source.chain, chain);
}

#[tokio::test]
async fn a_full_server_is_asked_again_until_it_answers() {
    let (_dir, path, client) = client();
    let asked = AtomicUsize::new(0);
    let stub = Stub::listen(&path, move |_| {
        match asked.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Reply::Raw(b"HTTP/1.1 503 \r\nContent-Length: 0\r\n\r\n".to_vec()),
            _ => Reply::nothing(),
        }
    })
    .unwrap();
    client.call(&request::vm_pause()).await.unwrap();
    assert_eq!(stub.received().len(), 3);
}

#[tokio::test]
async fn a_server_that_stays_full_is_busy() {
    let error = ping_error(Reply::Raw(b"HTTP/1.1 503 \r\n\r\n".to_vec())).await;
    assert!(matches!(error, Error::Busy { .. }), "{error:?}");
}

#[tokio::test]
async fn a_change_is_never_made_twice() {
    let (_dir, path, client) = client();
    let stub = Stub::listen(&path, |_| Reply::Close).unwrap();
    client.call(&request::vm_reboot()).await.unwrap_err();
    assert_eq!(stub.received().len(), 1);
}

#[tokio::test]
async fn nobody_there_is_said_at_once() {
    let (_dir, _path, client) = client();
    let error = client.ping().await.unwrap_err();
    assert!(matches!(error, Error::Transport { .. }), "{error:?}");
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_here() {
    let (_dir, path, client) = client();
    let stub = Stub::listen(&path, |_| Reply::nothing()).unwrap();
    let long = VmConfig {
        payload: Some(Payload::kernel("/k", "x".repeat(BODY_LIMIT))),
        ..VmConfig::default()
    };
    let error = client.call(&request::vm_create(&long)).await.unwrap_err();
    assert!(matches!(error, Error::RequestTooLarge { .. }), "{error:?}");
    let odd = Path::new(std::ffi::OsStr::from_bytes(b"/\xff"));
    let odd = VmConfig {
        payload: Some(Payload::kernel(odd, "")),
        ..VmConfig::default()
    };
    let error = client.call(&request::vm_create(&odd)).await.unwrap_err();
    assert!(matches!(error, Error::Encode { .. }), "{error:?}");
    assert_eq!(stub.received(), []);
}

#[tokio::test]
async fn descriptors_travel_beside_a_request() {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    let (_dir, path, client) = client();
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 4096];
        let mut slices = [std::io::IoSliceMut::new(&mut bytes)];
        let got = recvmsg(&stream, &mut slices, &mut beside, RecvFlags::empty()).unwrap();
        let fds: usize = beside
            .drain()
            .map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => fds.count(),
                _ => 0,
            })
            .sum();
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        std::io::Write::write_all(&mut stream, answer).unwrap();
        (
            fds,
            String::from_utf8_lossy(&bytes[..got.bytes]).into_owned(),
        )
    });
    let file = tempfile::tempfile().unwrap();
    let net = knest_vmm::device::NetConfig::default();
    let fds = [file.as_fd(), file.as_fd()];
    let body = client
        .call_with_fds(&request::vm_add_net(&net), &fds)
        .await
        .unwrap();
    assert_eq!(&body[..], b"{}");
    let (count, request) = server.join().unwrap();
    assert_eq!(count, 2);
    assert!(
        request.starts_with("PUT /api/v1/vm.add-net HTTP/1.1\r\n"),
        "{request}"
    );
}
