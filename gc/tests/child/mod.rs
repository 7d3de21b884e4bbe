//! Tests in a process of their own: this test binary again, with one test. And what such a process can have
//! refused by the system, for good.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io;
use std::process::{Child, Command, Output, Stdio};

const TOLD: &str = "STRIKESLIP_TEST_CHILD";

/// Whether this process was started by one of the functions below.
pub fn is_child() -> bool {
    std::env::var_os(TOLD).is_some()
}

fn command(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the test binary"));
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(TOLD, "1");
    command
}

/// Starts the test of this name in a child with pipes.
pub fn start(test: &str) -> Child {
    let mut command = command(test);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command.spawn().expect("a child")
}

/// Runs the test of this name in a child. What it says is shown if this test fails.
pub fn run(test: &str) -> Output {
    let output = command(test).output().expect("a child");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("running 1 test"), "no test is called {test}");
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Runs the test of this name in a child, where it has to succeed. True in the child.
pub fn in_child(test: &str) -> bool {
    if is_child() {
        return true;
    }
    let output = run(test);
    let ran = String::from_utf8_lossy(&output.stdout).contains("1 passed");
    assert!(output.status.success() && ran, "{test}: {}", output.status);
    false
}

/// A system call that is refused.
#[derive(Copy, Clone, Debug)]
pub struct Denied {
    pub call: i64,
    /// Of `ioctl`: only this request.
    pub request: Option<u32>,
    pub errno: i32,
}

/// `USERFAULTFD_IOC_NEW`, the request to the device.
pub const NEW_FROM_DEVICE: u32 = 0xAA00;
/// `UFFDIO_API`.
pub const UFFDIO_API: u32 = 0xC018_AA3F;
/// `UFFDIO_MOVE`.
pub const UFFDIO_MOVE: u32 = 0xC028_AA05;

pub const fn denied_call(call: i64, errno: i32) -> Denied {
    Denied { call, request: None, errno }
}

pub const fn denied_request(request: u32, errno: i32) -> Denied {
    Denied { call: libc::SYS_ioctl, request: Some(request), errno }
}

/// No way to get a userfaultfd.
pub fn deny_userfaultfd(errno: i32) {
    deny(&[denied_call(libc::SYS_userfaultfd, errno), denied_request(NEW_FROM_DEVICE, errno)], false);
}

/// From now on this thread and those it starts are refused these calls; with `everywhere` all threads are.
pub fn deny(denied: &[Denied], everywhere: bool) {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let line = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let unless_equal = |k: u32, skip: u8| line(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k, 0, skip);
    let number = std::mem::offset_of!(libc::seccomp_data, nr) as u32;
    let argument = std::mem::offset_of!(libc::seccomp_data, args) as u32 + 8;
    let mut filter = vec![];
    for denied in denied {
        filter.push(line(LOAD, number, 0, 0));
        filter.push(unless_equal(denied.call as u32, if denied.request.is_some() { 3 } else { 1 }));
        if let Some(request) = denied.request {
            filter.push(line(LOAD, argument, 0, 0));
            filter.push(unless_equal(request, 1));
        }
        filter.push(line(libc::BPF_RET, libc::SECCOMP_RET_ERRNO | denied.errno as u32, 0, 0));
    }
    filter.push(line(libc::BPF_RET, libc::SECCOMP_RET_ALLOW, 0, 0));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    let flags = if everywhere { libc::SECCOMP_FILTER_FLAG_TSYNC } else { 0 };
    // SAFETY: both calls take values, and a program that lives until the second one returns.
    let answers = unsafe {
        [
            libc::c_long::from(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)),
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                std::ptr::from_ref(&program),
            ),
        ]
    };
    assert_eq!(answers, [0, 0], "{}", io::Error::last_os_error());
}

/// Descriptors that are open.
pub fn open_files() -> usize {
    // One is open for this look.
    std::fs::read_dir("/proc/self/fd").expect("/proc").count() - 1
}

/// Mappings of this process.
pub fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").expect("/proc").lines().count()
}
