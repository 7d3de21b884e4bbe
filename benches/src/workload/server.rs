//! A cache server on the loopback interface: mutators that answer requests over real sockets. Each connection has
//! a mutator of its own and a shard of its own in the one heap, so that the answers do not depend on timing.
//!
//! A request is a byte (0: get, 1: set), a key, and for *set* a length and a value; an answer is a length (of the
//! value; 0 for *set*, `MISS` for a key that is not there) and a value. Numbers are little-endian. A shard has a
//! place for each `key mod places`; *set* puts its key and a copy of its value there, whatever was there before.

mod client;

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Barrier, OnceLock};
use std::thread;

use clap::Args;
use serde::{Deserialize, Serialize};
use strikeslip::{Array, Bytes, Field, Heap, Local, Mutator, OutOfMemory, Scope, Slot, object};

use self::client::Client;
use super::{Checksum, Look, Outcome, Task, Workload, on_mutator, spawn_mutator};
use crate::error::Error;
use crate::measure::timed::{Section, Timed};

/// Parameters.
#[derive(Copy, Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[group(id = "server-parameters")]
pub struct Parameters {
    /// server: connections, each with a mutator of its own
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub connections: u8,
    /// server: places of each connection's shard
    #[arg(long, default_value_t = 100_000)]
    pub places: usize,
    /// server: timed requests of each connection
    #[arg(long, default_value_t = 25_000)]
    pub requests: usize,
}

/// The workload.
#[derive(Debug)]
pub struct Server(pub Parameters);

object! {
    /// What lies in a place.
    struct Item {
        key: Field<u64>,
        value: Slot<Bytes>,
    }
}

/// The request to get a value.
const GET: u8 = 0;
/// The request to set one.
const SET: u8 = 1;
/// The length that says that a key is not there.
const MISS: u32 = u32::MAX;
/// Length of the longest value.
const MOST_BYTES: usize = 1024;

impl Workload for Server {
    fn run(&self, heap: &Heap, task: &Task) -> Result<Outcome, Error> {
        let connections = self.0.connections;
        // Where all clients and this thread meet: when the shards are filled, when all answers are there, and when
        // the section has ended (until then no thread ends, for its processor time would be lost).
        let meeting = Barrier::new(usize::from(connections) + 1);
        let begin_ns = OnceLock::new();
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(Error::Socket)?;
        thread::scope(|scope| {
            let (mut servers, mut clients) = (vec![], vec![]);
            for number in 0..connections {
                let (near, far) = connect(&listener).map_err(Error::Socket)?;
                let places = self.0.places;
                servers.push(spawn_mutator(scope, heap, number + 1, move |m| serve(m, near, places))?);
                let client = Client::new(far, self.0, number, task);
                let (meeting, begin_ns) = (&meeting, &begin_ns);
                let run = move || client.run(meeting, begin_ns);
                let thread = thread::Builder::new().name(format!("client-{number}"));
                clients.push(thread.spawn_scoped(scope, run).map_err(Error::Thread)?);
            }
            meeting.wait();
            let timed = Timed::begin(heap, task.epoch, task.interval_ns, 0);
            // Nobody else sets it.
            let _ = begin_ns.set(timed.begin_ns());
            meeting.wait();
            let section = timed.end();
            meeting.wait();
            let (mut operations, mut checksum) = (vec![], Checksum::default());
            for client in clients {
                let (mine, sum) = client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                operations.extend(mine);
                checksum.fold(sum.0);
            }
            operations.sort_unstable();
            let count = operations.len() as u64;
            for server in servers {
                server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            let section = Section { operations, ..section };
            Ok(Outcome { checksum, operations: count, mutators: connections, section })
        })
    }

    fn most_live(&self, heap: &Heap, _seed: u64, look: Look<'_>) -> Result<(), Error> {
        on_mutator(heap, 1, |m| {
            m.scope(|m, s| {
                let shards = usize::from(self.0.connections);
                let shards: Vec<_> =
                    (0..shards).map(|_| m.alloc_array(s, self.0.places)).collect::<Result<_, _>>()?;
                for shard in shards {
                    for place in 0..self.0.places {
                        let key = place as u64;
                        put(m, shard, key, &[0; MOST_BYTES][..client::value_bytes(key)])?;
                    }
                }
                look(m);
                Ok(())
            })
        })
    }
}

/// Both ends of a new connection.
fn connect(listener: &TcpListener) -> io::Result<(TcpStream, TcpStream)> {
    let far = TcpStream::connect(listener.local_addr()?)?;
    let (near, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

type Shard<'s> = Local<'s, Array<Item>>;

/// Answers requests until the client closes the connection.
fn serve(m: &mut Mutator, mut stream: TcpStream, places: usize) -> Result<(), Error> {
    m.scope(|m, s| {
        let shard: Shard<'_> = m.alloc_array::<Item>(s, places)?;
        let (mut value, mut answer) = (vec![0; MOST_BYTES], Vec::with_capacity(MOST_BYTES + 4));
        // Nothing of the heap is given to a system call: values are copied in and out.
        while let Some(request) = m.blocked(|| receive(&mut stream, &mut value)).map_err(Error::Socket)? {
            answer.clear();
            match request {
                Request::Set { key, bytes } => {
                    put(m, shard, key, &value[..bytes])?;
                    answer.extend(0_u32.to_le_bytes());
                }
                Request::Get { key } => get(m, shard, key, &mut answer),
            }
            m.blocked(|| stream.write_all(&answer)).map_err(Error::Socket)?;
        }
        Ok(())
    })
}

#[derive(Copy, Clone, Debug)]
enum Request {
    Get { key: u64 },
    Set { key: u64, bytes: usize },
}

/// The next request, its value in `value`; `None` if there is none any more.
fn receive(stream: &mut TcpStream, value: &mut [u8]) -> io::Result<Option<Request>> {
    let mut head = [0; 9];
    match stream.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let [kind, key @ ..] = head;
    let key = u64::from_le_bytes(key);
    if kind == GET {
        return Ok(Some(Request::Get { key }));
    }
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    let bytes = u32::from_le_bytes(bytes) as usize;
    let value = value.get_mut(..bytes).ok_or(io::ErrorKind::InvalidData)?;
    stream.read_exact(value)?;
    Ok(Some(Request::Set { key, bytes }))
}

fn put(m: &mut Mutator, shard: Shard<'_>, key: u64, value: &[u8]) -> Result<(), OutOfMemory> {
    m.scope(|m, s: &Scope<'_>| {
        let bytes = m.alloc_bytes(s, value)?;
        let item = m.alloc::<Item>(s)?;
        let (shard, item) = (shard.get(m).as_ref(), item.get(m));
        item.key.set(key);
        item.value.store(m, Some(bytes.get(m)));
        shard.set(m, key as usize % shard.len(), Some(item));
        Ok(())
    })
}

fn get(m: &Mutator, shard: Shard<'_>, key: u64, answer: &mut Vec<u8>) {
    let shard = shard.get(m).as_ref();
    let item = shard.get(key as usize % shard.len()).filter(|item| item.key.get() == key);
    match item.and_then(|item| item.as_ref().value.load()) {
        Some(value) => {
            answer.extend((value.len() as u32).to_le_bytes());
            answer.resize(4 + value.len(), 0);
            value.copy_to(0, &mut answer[4..]);
        }
        None => answer.extend(MISS.to_le_bytes()),
    }
}
