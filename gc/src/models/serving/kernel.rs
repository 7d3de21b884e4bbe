//! A replica of what the kernel does for one registered page.

use loom::sync::{Condvar, Mutex};
use loom::thread;

/// The kernel's side of one page that was never written.
#[derive(Default)]
struct Registration {
    registered: bool,
    present: bool,
    /// Threads that wait for the page, and the events that tell of them.
    waiting: bool,
    events: usize,
    over: bool,
}

/// The kernel, as far as one page is concerned.
pub struct Kernel {
    state: Mutex<Registration>,
    changed: Condvar,
}

impl Kernel {
    /// With the page registered.
    pub fn new() -> Self {
        let state = Registration { registered: true, ..Registration::default() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// A mutator's access: waits while the page is missing, as often as it takes.
    pub fn access(&self) {
        let mut state = self.state.lock().unwrap();
        while state.registered && !state.present {
            state.waiting = true;
            state.events += 1;
            self.changed.notify_all();
            while state.waiting {
                state = self.changed.wait(state).unwrap();
            }
            drop(state);
            thread::yield_now(); // Let who ends the registration go on.
            state = self.state.lock().unwrap();
        }
    }

    pub fn wake(&self) {
        self.state.lock().unwrap().waiting = false;
        self.changed.notify_all();
    }

    /// Installs zeros; if the page is not registered, says so to nobody.
    pub fn zero(&self) {
        self.state.lock().unwrap().present = true;
        self.wake();
    }

    /// As in the kernel: who waits is woken before the registration ends.
    pub fn unregister(&self) {
        self.wake();
        self.state.lock().unwrap().registered = false;
    }

    /// The next event, for the reader. False: there will be none.
    pub fn next_event(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        loop {
            if state.events > 0 {
                state.events -= 1;
                return true;
            }
            if state.over {
                return false;
            }
            state = self.changed.wait(state).unwrap();
        }
    }

    pub fn end(&self) {
        self.state.lock().unwrap().over = true;
        self.changed.notify_all();
    }
}
