//! A hub on loopback: the few answers that the client asks a real one for.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Serves the files of one repository.
pub struct HubServer {
    pub endpoint: String,
    requests: Arc<Mutex<Vec<String>>>,
}

pub const REPOSITORY: &str = "org/small";
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

impl HubServer {
    pub fn start(files: Vec<(&'static str, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                answer(stream, &files, &seen);
            }
        });
        Self { endpoint, requests }
    }

    /// The paths asked for so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// One request, one answer, and the end of the connection.
fn answer(mut stream: TcpStream, files: &[(&str, String)], seen: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let first = lines.next().and_then(Result::ok).unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut probe = false;
    for line in lines.map_while(Result::ok) {
        if line.is_empty() {
            break;
        }
        let line = line.to_ascii_lowercase();
        probe |= line.starts_with("range:") && line.contains("bytes=0-0");
    }
    seen.lock().unwrap().push(path.clone());
    let file = ["main", COMMIT].into_iter().find_map(|revision| {
        let name = path.strip_prefix(&format!("/{REPOSITORY}/resolve/{revision}/"))?;
        files.iter().find(|(known, _)| *known == name)
    });
    let response = match file {
        Some((name, contents)) => {
            let body = if probe {
                contents.get(..1).unwrap_or_default()
            } else {
                contents.as_str()
            };
            format!(
                "HTTP/1.1 206 Partial Content\r\netag: \"etag-{name}\"\r\nx-repo-commit: {COMMIT}\r\n\
                 content-range: bytes 0-{}/{}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len() - 1,
                contents.len(),
                body.len(),
            )
        }
        None => {
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()
        }
    };
    let _ = stream.write_all(response.as_bytes());
}
