//! A registry on loopback that serves one image and misbehaves as it is told. One thread a
//! connection, one request a connection.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use knest_rootfs::source::Memory;
use knest_rootfs::{BlobSource, Descriptor, Image, Platform};

/// What came in.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What goes out.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Only so many bytes of the body are sent, as if the connection broke.
    pub cut: Option<usize>,
    /// What is missing is waited for, not broken off.
    pub stall: bool,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply {
            status,
            headers: Vec::new(),
            body: body.into(),
            cut: None,
            stall: false,
        }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn cut(mut self, at: usize) -> Reply {
        self.cut = Some(at);
        self
    }

    pub fn stall(mut self, at: usize) -> Reply {
        self.stall = true;
        self.cut(at)
    }
}

/// Changes a reply; the number says the how many-th request for that path it is.
pub type Fault = dyn Fn(&Request, usize, Reply) -> Reply + Send + Sync;

pub struct Server {
    pub address: String,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Serves these documents.
    pub fn new(files: HashMap<String, (String, Vec<u8>)>, fault: Box<Fault>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let served = (Arc::new(files), Arc::new(fault), Arc::clone(&log));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, fault, log) = served.clone();
                std::thread::spawn(move || serve(&stream, &files, &**fault, &log));
            }
        });
        Server { address, log }
    }

    /// Serves an image as `a/b:v1`.
    pub fn of(
        image: &Memory,
        fault: impl Fn(&Request, usize, Reply) -> Reply + Send + Sync + 'static,
    ) -> Server {
        Server::new(files(image), Box::new(fault))
    }

    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    /// Those for a path.
    pub fn requests_for(&self, part: &str) -> Vec<Request> {
        let mut requests = self.requests();
        requests.retain(|request| request.path.contains(part));
        requests
    }
}

fn files(source: &Memory) -> HashMap<String, (String, Vec<u8>)> {
    let bytes = |blob: &Descriptor| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut *source.open(blob).unwrap(), &mut bytes).unwrap();
        (blob.media_type.clone(), bytes)
    };
    let image = Image::resolve(source, &Platform::host()).unwrap();
    let mut files = HashMap::new();
    for blob in image.blobs() {
        files.insert(format!("/v2/a/b/blobs/{}", blob.digest), bytes(blob));
    }
    for name in ["v1".to_owned(), source.root().digest.to_string()] {
        files.insert(format!("/v2/a/b/manifests/{name}"), bytes(source.root()));
    }
    files
}

fn serve(
    mut stream: &TcpStream,
    files: &HashMap<String, (String, Vec<u8>)>,
    fault: &Fault,
    log: &Mutex<Vec<Request>>,
) -> Option<()> {
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    let request = read(stream)?;
    let path = request
        .path
        .split('?')
        .next()
        .unwrap_or_default()
        .to_owned();
    let count = {
        let mut log = log.lock().unwrap();
        log.push(request.clone());
        log.iter()
            .filter(|before| before.path == request.path)
            .count()
    };
    let reply = match files.get(&path) {
        Some((media_type, bytes)) => ranged(&request, bytes).header("Content-Type", media_type),
        None => Reply::new(
            404,
            r#"{"errors":[{"code":"NAME_UNKNOWN","message":"no such thing"}]}"#,
        ),
    };
    let reply = fault(&request, count, reply);
    let mut head = format!("HTTP/1.1 {} Word\r\nConnection: close\r\n", reply.status);
    let has = |name: &str| reply.headers.iter().any(|(known, _)| known == name);
    if !has("Content-Length") && !has("Transfer-Encoding") {
        head += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    let end = reply
        .cut
        .map_or(reply.body.len(), |cut| cut.min(reply.body.len()));
    if request.method != "HEAD" {
        stream.write_all(&reply.body[..end]).ok()?;
    }
    if reply.stall {
        // Until the other side goes away.
        drop(std::io::Read::read(&mut stream, &mut [0]));
    }
    stream.shutdown(Shutdown::Write).ok()
}

fn ranged(request: &Request, bytes: &[u8]) -> Reply {
    let range = request
        .header("range")
        .and_then(|range| range.strip_prefix("bytes="));
    let start: Option<usize> = range.and_then(|range| range.strip_suffix('-')?.parse().ok());
    match start {
        Some(start) if start < bytes.len() => {
            let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
            Reply::new(206, &bytes[start..]).header("Content-Range", range)
        }
        Some(_) => Reply::new(416, ""),
        None => Reply::new(200, bytes),
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    std::io::Read::read_exact(&mut reader, &mut body).ok()?;
    Some(Request {
        method,
        path,
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}
