//! The load on the server: one client a connection, on a thread that no heap knows. It keeps a model of its shard
//! and checks every answer against it.

use std::hint::spin_loop;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use strikeslip_demos::random::{Random, mix};

use super::{GET, MISS, MOST_BYTES, Parameters, SET};
use crate::error::{Error, expect_equal};
use crate::measure::timed::nanoseconds_since;
use crate::workload::{Checksum, Task};

/// One request in so many sets a value.
const SET_EVERY: u64 = 4;
/// A sleep ends this much before the intended start of a request: waking up takes time.
const AWAKE_BEFORE: Duration = Duration::from_micros(80);

/// Length of the value that belongs to a seed.
pub(super) const fn value_bytes(seed: u64) -> usize {
    64 + (mix(seed) % (MOST_BYTES as u64 - 64 + 1)) as usize
}

/// Starts and ends of requests, and the checksum of the answers.
type Answers = (Vec<(u64, u64)>, Checksum);

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    parameters: Parameters,
    number: u8,
    interval_ns: u64,
    epoch: Instant,
    random: Random,
    /// Key and seed of what lies in each place of the shard.
    model: Vec<(u64, u64)>,
    buffer: Vec<u8>,
    checksum: Checksum,
}

impl Client {
    pub(super) fn new(stream: TcpStream, parameters: Parameters, number: u8, task: &Task) -> Self {
        Self {
            stream,
            parameters,
            number,
            interval_ns: task.interval_ns,
            epoch: task.epoch,
            random: Random::new(task.seed, 1 + u64::from(number)),
            model: Vec::with_capacity(parameters.places),
            buffer: Vec::with_capacity(MOST_BYTES + 13),
            checksum: Checksum::default(),
        }
    }

    /// Fills the shard, waits for the others, and sends requests from `begin_ns` on.
    pub(super) fn run(mut self, meeting: &Barrier, begin_ns: &OnceLock<u64>) -> Result<Answers, Error> {
        // Whatever happens, the others wait at each meeting.
        let filled = self.fill();
        meeting.wait();
        let answers = filled.and_then(|()| self.requests(*begin_ns.wait()));
        meeting.wait();
        meeting.wait();
        answers
    }

    fn fill(&mut self) -> Result<(), Error> {
        (0..self.parameters.places as u64).try_for_each(|key| {
            let seed = self.random.next();
            self.model.push((key, seed));
            self.set(key, seed)
        })
    }

    fn requests(&mut self, begin: u64) -> Result<Answers, Error> {
        let connections = u64::from(self.parameters.connections);
        let mut requests = Vec::with_capacity(self.parameters.requests);
        for nth in 0..self.parameters.requests as u64 {
            let start = match self.interval_ns {
                0 => nanoseconds_since(self.epoch),
                interval => begin + (nth * connections + u64::from(self.number)) * interval,
            };
            self.wait_until(start);
            self.request()?;
            requests.push((start, nanoseconds_since(self.epoch)));
        }
        Ok((requests, self.checksum))
    }

    fn wait_until(&self, start: u64) {
        let left = Duration::from_nanos(start.saturating_sub(nanoseconds_since(self.epoch)));
        if left > AWAKE_BEFORE {
            thread::sleep(left - AWAKE_BEFORE);
        }
        while nanoseconds_since(self.epoch) < start {
            spin_loop();
        }
    }

    fn request(&mut self) -> Result<(), Error> {
        let (bits, key) = (self.random.next(), self.random.below(2 * self.parameters.places) as u64);
        if bits.is_multiple_of(SET_EVERY) {
            let place = key as usize % self.parameters.places;
            self.model[place] = (key, bits);
            return self.set(key, bits);
        }
        self.get(key)
    }

    fn set(&mut self, key: u64, seed: u64) -> Result<(), Error> {
        self.buffer.clear();
        self.buffer.push(SET);
        self.buffer.extend(key.to_le_bytes());
        self.buffer.extend((value_bytes(seed) as u32).to_le_bytes());
        self.buffer.extend(seed.to_le_bytes().iter().cycle().take(value_bytes(seed)));
        let length = self.exchange().map_err(Error::Socket)?;
        expect_equal("answer to set of key", key as usize, 0, u64::from(length))
    }

    fn get(&mut self, key: u64) -> Result<(), Error> {
        self.buffer.clear();
        self.buffer.push(GET);
        self.buffer.extend(key.to_le_bytes());
        let length = self.exchange().map_err(Error::Socket)?;
        let (there, seed) = self.model[key as usize % self.parameters.places];
        let expected = if there == key { value_bytes(seed) as u32 } else { MISS };
        expect_equal("length of the value of key", key as usize, expected.into(), length.into())?;
        self.checksum.fold(u64::from(length));
        if length != MISS {
            self.buffer.resize(length as usize, 0);
            self.stream.read_exact(&mut self.buffer).map_err(Error::Socket)?;
            let right = self.buffer.iter().eq(seed.to_le_bytes().iter().cycle().take(length as usize));
            expect_equal("value of key", key as usize, 1, right.into())?;
            self.checksum.fold(u64::from(self.buffer[0]));
        }
        Ok(())
    }

    /// Sends what is in the buffer; returns the length that the answer begins with.
    fn exchange(&mut self) -> io::Result<u32> {
        self.stream.write_all(&self.buffer)?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        Ok(u32::from_le_bytes(length))
    }
}
