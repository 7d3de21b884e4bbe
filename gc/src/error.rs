//! The errors a caller can act on. Everything else is an expected answer of the kernel (an outcome
//! enum inside `sys`) or a broken invariant (the process stops, with page, state and phase).

/// Why an object could not be allocated. Running out of memory is a value, in three kinds.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AllocError {
    /// No heap of this limit can ever hold an object of this size.
    #[error("object of {bytes} bytes is too large: the most is {most}")]
    TooLarge {
        /// Bytes asked for.
        bytes: usize,
        /// Bytes of the largest object this heap can hold.
        most: usize,
    },
    /// The heap limit is reached, and a whole collection that began after the request was made did
    /// not free enough.
    #[error("heap limit of {limit} bytes reached; {bytes} more bytes were asked for")]
    HeapLimit {
        /// Bytes asked for.
        bytes: usize,
        /// The heap's limit in bytes.
        limit: usize,
    },
    /// There is no address space left: the root window is full. (Memory for objects is asked for by touching
    /// it, which the system does not refuse; it ends processes instead.)
    #[error("the system refused {bytes} bytes of memory")]
    SystemRefused {
        /// Bytes asked for.
        bytes: usize,
    },
}

/// Why a heap could not be created.
#[derive(Debug, thiserror::Error)]
pub enum HeapError {
    /// An option has a value that cannot work.
    #[error("{option}: {reason}")]
    BadOption {
        /// Name of the option.
        option: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
    /// Address space for the windows or their side tables could not be reserved.
    #[error("cannot reserve {bytes} bytes of address space: {source}")]
    Reserve {
        /// Bytes asked for.
        bytes: usize,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A thread of the collector could not be started.
    #[error("cannot start a collector thread: {0}")]
    Thread(std::io::Error),
    /// A mode was demanded (not merely preferred) that this system does not offer.
    #[error("mode {mode} is not available: {reason}")]
    ModeUnavailable {
        /// The mode that was demanded.
        mode: crate::options::Mode,
        /// Why not.
        reason: String,
    },
}
