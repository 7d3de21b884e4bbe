//! Random programs on object graphs: a stream of operations, an oracle that knows what each must lead to, and an
//! interpreter that does both on any [`Machine`].
//!
//! A program is bytes, and any bytes are a program: what `proptest` draws, what a fuzzer mutates and what lies
//! in the corpus is the same. Several contexts (mutators) take turns, so that the oracle is one, and always
//! right; the collector works beside all of them.
//!
//! The format: [`HEADER_BYTES`] bytes of [`Setup`], then four bytes for each [`Operation`].

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod interpreter;
pub mod oracle;

/// Bytes before the first operation.
pub const HEADER_BYTES: usize = 8;
/// Bytes of an operation.
pub const OPERATION_BYTES: usize = 4;
/// Operations of a program; what follows is not looked at.
pub const MOST_OPERATIONS: usize = 600;
/// Contexts of a program.
pub const MOST_CONTEXTS: usize = 4;
/// References that a context can hold.
pub const REGISTERS: usize = 8;
/// References that all contexts share.
pub const GLOBALS: usize = 4;

/// How the heap is made and disturbed.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Setup {
    /// Pages are moved, not only copied.
    pub moves: bool,
    /// Faults are delivered to a pool.
    pub pool: bool,
    pub huge_pages: bool,
    /// A cycle may also start because the heap fills up.
    pub automatic: bool,
    pub young_cycles: bool,
    /// The verifier's level: 0 is off.
    pub verify: usize,
    pub workers: usize,
    pub mark_workers: usize,
    pub contexts: usize,
    pub limit_bytes: usize,
    pub buffer_bytes: usize,
    pub patch_budget: usize,
    pub evacuate_below_percent: u8,
    /// Of 1000 requests of the page service, so many get a rare answer.
    pub forced_per_mille: u16,
    pub refuse_moves_after: Option<u64>,
    pub refuse_registrations: u16,
    /// Of the forced answers and, in a simulation, of everything else.
    pub seed: u64,
}

impl Setup {
    fn decode(header: [u8; HEADER_BYTES]) -> Self {
        let [flags, threads, sizes, forced, refused, limit, low, high] = header;
        let bit = |nth: u8| flags >> nth & 1 == 1;
        let pick = |of: [usize; 4], from: u8| of[usize::from(from & 3)];
        Self {
            moves: bit(0),
            pool: bit(1),
            huge_pages: bit(2),
            automatic: bit(3),
            young_cycles: bit(6),
            verify: usize::from(flags >> 4 & 3),
            workers: 1 + usize::from(threads & 3) % 3,
            mark_workers: 1 + usize::from(threads >> 2 & 1),
            contexts: 1 + usize::from(threads >> 3) % MOST_CONTEXTS,
            limit_bytes: pick([16 << 20, 24 << 20, 32 << 20, 64 << 20], limit),
            buffer_bytes: pick([1 << 10, 4 << 10, 32 << 10, 256 << 10], sizes),
            patch_budget: pick([0, 4, 256, 1 << 20], sizes >> 2),
            evacuate_below_percent: [10, 50, 75, 100][usize::from(sizes >> 4 & 3)],
            forced_per_mille: [0, 0, 50, 200, 500, 800, 900, 0][usize::from(forced & 7)],
            refuse_moves_after: (refused & 1 == 1).then(|| u64::from(refused >> 2)),
            refuse_registrations: if refused & 2 == 2 { 300 } else { 0 },
            seed: u64::from(low) | u64::from(high) << 8,
        }
    }
}

/// What an object is made of.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// Two references and a plain word.
    Node,
    /// References.
    Array,
    /// Plain words.
    Data,
    /// A plain word, a reference, a plain word, a reference, a plain word.
    Mixed,
    /// Plain words, allocated so that they never move.
    Pinned,
}

impl Kind {
    /// References of an object of this kind and length.
    pub const fn references(self, length: usize) -> usize {
        match self {
            Self::Node | Self::Mixed => 2,
            Self::Array => length,
            Self::Data | Self::Pinned => 0,
        }
    }

    /// Plain words of an object of this kind and length.
    pub const fn words(self, length: usize) -> usize {
        match self {
            Self::Node => 1,
            Self::Mixed => 3,
            Self::Array => 0,
            Self::Data | Self::Pinned => length,
        }
    }

    /// Bytes of an object, with its header.
    pub const fn bytes(self, length: usize) -> usize {
        8 * (1 + self.references(length) + self.words(length))
    }

    /// The length of an object of this kind for which `length` was asked: those of fixed size have none.
    pub const fn length(self, length: usize) -> usize {
        match self {
            Self::Node | Self::Mixed => 0,
            Self::Array | Self::Data | Self::Pinned => length,
        }
    }
}

/// A collection that can be asked for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Collection {
    /// Only of objects born since the last one, if that is possible.
    Young,
    /// Of all objects; what is worth it is evacuated.
    Full,
    /// Of all objects; everything that can be is evacuated.
    Everything,
}

/// What a context does until the collection that it asked for is over.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Meanwhile {
    /// It waits.
    Wait,
    /// It follows references from a register on, and looks at what it finds.
    Roam(usize),
    /// It goes on with its program.
    GoOn,
}

/// What a context does. Registers, globals, slots and words are taken modulo how many there are.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Allocates an object.
    Allocate { kind: Kind, length: usize, into: usize },
    /// Loads a reference out of the object in a register.
    Load { holder: usize, slot: usize, into: usize },
    /// Stores a reference, or none, into the object in a register.
    Store { holder: usize, slot: usize, from: Option<usize> },
    /// Copies a register.
    Copy { from: usize, into: usize },
    /// Empties a register.
    Drop { register: usize },
    /// Writes a plain word.
    Write { holder: usize, word: usize, value: u64 },
    /// Compares the object in a register with the oracle.
    Look { register: usize },
    /// Gives a reference to all contexts, or empties the place.
    Publish { from: Option<usize>, global: usize },
    /// Takes a reference from there.
    Subscribe { global: usize, into: usize },
    /// Puts nodes, each with some data, before what is in a register; on the kernel four times as many.
    Grow { register: usize, count: usize, length: usize },
    /// Unlinks every other node of such a list.
    Thin { register: usize },
    /// Allocates what nobody keeps; on the kernel four times as much.
    Waste { count: usize, length: usize },
    /// Keeps an object where it is from now on, or not any more.
    Pin { register: usize, pinned: bool },
    /// Asks for a collection.
    Collect { collection: Collection, meanwhile: Meanwhile },
    /// Follows so many references, from a register on.
    Roam { register: usize, count: usize },
    /// It is another context's turn.
    Switch { context: usize },
    /// Compares all that this context reaches with the oracle.
    Check,
}

/// Lengths of all sizes: of 256, most are small, and the last ones are large objects.
const fn length(byte: u8) -> usize {
    let value = byte as usize & 31;
    match byte >> 5 {
        0..=3 => 1 + (byte as usize & 127),
        4 => 40 * (1 + value),
        5 => 512 * (1 + value),
        6 => 4096 * (1 + value),
        // A region has 2^18 words: more than half of one is a large object.
        _ => (1 << 17) + 8192 * value,
    }
}

impl Operation {
    fn decode([code, a, b, c]: [u8; OPERATION_BYTES]) -> Self {
        let register = |byte: u8| usize::from(byte) % REGISTERS;
        let maybe = |byte: u8| (byte & 0x80 == 0).then(|| register(byte));
        let kinds = [Kind::Node, Kind::Array, Kind::Data, Kind::Mixed];
        match code % 20 {
            0 | 1 => {
                let kind = kinds[usize::from(a & 3)];
                Self::Allocate { kind, length: length(b), into: register(c) }
            }
            2 => Self::Allocate { kind: Kind::Pinned, length: length(b), into: register(c) },
            3 | 4 => Self::Load { holder: register(a), slot: b.into(), into: register(c) },
            5 | 6 => Self::Store { holder: register(a), slot: b.into(), from: maybe(c) },
            7 => Self::Copy { from: register(a), into: register(b) },
            8 => Self::Drop { register: register(a) },
            9 => Self::Write { holder: register(a), word: b.into(), value: u64::from(c) << 32 | 1 },
            10 => Self::Look { register: register(a) },
            11 => Self::Publish { from: maybe(a), global: usize::from(b) % GLOBALS },
            12 => Self::Subscribe { global: usize::from(a) % GLOBALS, into: register(b) },
            13 => Self::Grow { register: register(a), count: usize::from(b), length: length(c & 0x9f) },
            14 => Self::Thin { register: register(a) },
            15 => Self::Waste { count: usize::from(a), length: length(b & 0xbf) },
            16 => Self::Pin { register: register(a), pinned: b & 1 == 0 },
            17 => {
                let meanwhile = match b & 7 {
                    0 | 1 => Meanwhile::Wait,
                    2..=4 => Meanwhile::Roam(register(c)),
                    _ => Meanwhile::GoOn,
                };
                let collections =
                    [Collection::Everything, Collection::Everything, Collection::Full, Collection::Young];
                Self::Collect { collection: collections[usize::from(a & 3)], meanwhile }
            }
            18 => Self::Roam { register: register(a), count: usize::from(b) },
            _ if a & 3 == 0 => Self::Check,
            _ => Self::Switch { context: usize::from(b) % MOST_CONTEXTS },
        }
    }
}

/// Operations that one context performs in its turn.
#[derive(Clone, Debug)]
pub struct Turn {
    pub context: usize,
    pub operations: Vec<Operation>,
}

/// A program.
#[derive(Clone, Debug)]
pub struct Program {
    pub setup: Setup,
    pub turns: Vec<Turn>,
}

impl Program {
    /// The program that these bytes are. What is missing of a header is zero; half an operation is none.
    pub fn decode(bytes: &[u8]) -> Self {
        let mut header = [0; HEADER_BYTES];
        let given = bytes.len().min(HEADER_BYTES);
        header[..given].copy_from_slice(&bytes[..given]);
        let setup = Setup::decode(header);
        let mut turns = vec![Turn { context: 0, operations: vec![] }];
        let (operations, _) = bytes[given..].as_chunks::<OPERATION_BYTES>();
        for &bytes in operations.iter().take(MOST_OPERATIONS) {
            match Operation::decode(bytes) {
                Operation::Switch { context } => {
                    turns.push(Turn { context: context % setup.contexts, operations: vec![] });
                }
                operation => turns.last_mut().expect("the first one").operations.push(operation),
            }
        }
        // In the end everything is evacuated once more, and all contexts look.
        let collect = Operation::Collect { collection: Collection::Everything, meanwhile: Meanwhile::Wait };
        turns.push(Turn { context: 0, operations: vec![collect] });
        let check = |context| Turn { context, operations: vec![Operation::Check] };
        turns.extend((0..setup.contexts).map(check));
        Self { setup, turns }
    }
}
