//! A proxy on loopback that can make the way to a server slow, deaf or broken, and counts the
//! round trips on it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A proxy to one server, which need not be there yet.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    delay_ms: AtomicU64,
    deaf: AtomicBool,
    ended: AtomicBool,
    turns: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

/// Who speaks on a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

impl Proxy {
    /// Starts passing bytes on to `server`, a port of 127.0.0.1.
    pub fn start(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap_or_else(|e| panic!("{e}"));
        let port = listener
            .local_addr()
            .map(|address| address.port())
            .unwrap_or_else(|e| panic!("{e}"));
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || shared.connection(client, server));
            }
        });
        Self { port, shared }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on every piece waits this long before it goes on, each way.
    pub fn delay(&self, delay: Duration) {
        let ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.shared.delay_ms.store(ms, Ordering::SeqCst);
    }

    /// From now on nothing is passed on, and nothing is closed: as if the network were gone.
    pub fn be_deaf(&self, deaf: bool) {
        self.shared.deaf.store(deaf, Ordering::SeqCst);
    }

    /// Closes every open connection; new ones are welcome.
    pub fn sever(&self) {
        for stream in self.shared.open().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Times a client spoke after the server had, or first: round trips.
    pub fn round_trips(&self) -> u64 {
        self.shared.turns.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.be_deaf(false);
        self.sever();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn open(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connection(self: Arc<Self>, client: TcpStream, server: u16) {
        let address = SocketAddr::from(([127, 0, 0, 1], server));
        // Without a server the client meets a closed connection.
        let Ok(server) = TcpStream::connect(address) else {
            return;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let speaker = Arc::new(Mutex::new(Side::Server));
        let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else {
            return;
        };
        {
            let mut open = self.open();
            open.extend(
                [&client, &server]
                    .into_iter()
                    .flat_map(TcpStream::try_clone),
            );
        }
        let (shared, spoken) = (Arc::clone(&self), Arc::clone(&speaker));
        std::thread::spawn(move || shared.pass(server_too, client_too, Side::Server, &spoken));
        self.pass(client, server, Side::Client, &speaker);
    }

    fn pass(&self, mut from: TcpStream, mut to: TcpStream, side: Side, speaker: &Mutex<Side>) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count) = from.read(&mut buffer) {
            if count == 0 {
                break;
            }
            {
                let mut last = speaker.lock().unwrap_or_else(PoisonError::into_inner);
                if *last == Side::Server && side == Side::Client {
                    self.turns.fetch_add(1, Ordering::SeqCst);
                }
                *last = side;
            }
            std::thread::sleep(Duration::from_millis(self.delay_ms.load(Ordering::SeqCst)));
            while self.deaf.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
