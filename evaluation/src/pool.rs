//! The pool of worker processes: started when there is work, ended when idle, killed over a limit.

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use convergio_domain::id::TenantId;
use tokio::sync::oneshot;

use crate::attempts::{Attempt, Attempts};
use crate::error::EvaluationError;
use crate::gate::Gate;
use crate::job::{Answer, Job};
use crate::process::{Death, Reply, Worker};
use crate::{Evaluation, wire};

pub use crate::process::WorkerProgram;

/// Deaths of workers that one job may cause. More than one, since memory that an earlier job left
/// behind may have killed the worker.
const DEATHS_LIMIT: u32 = 3;
/// Time that an idle worker is kept.
const IDLE: Duration = Duration::from_secs(30);
/// Fewest workers: with two, one long job does not keep others from a short one.
const LEAST_WORKERS: usize = 2;

/// Limits of a pool and of its jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkLimits {
    /// Most workers at once.
    pub workers: usize,
    /// Longest time of one job, both wall clock and processor time.
    pub timeout: Duration,
    /// Memory of one worker in MiB.
    pub memory_mib: u64,
    /// Most waiting jobs of one tenant.
    pub waiting: usize,
}

impl Default for WorkLimits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            workers: cores.max(LEAST_WORKERS),
            timeout: Duration::from_secs(10),
            memory_mib: 512,
            waiting: 1024,
        }
    }
}

/// An [`EvaluationBackend`] of worker processes.
pub struct WorkerPool {
    shared: Arc<Shared>,
}

struct Shared {
    program: WorkerProgram,
    limits: WorkLimits,
    gate: Arc<Gate>,
    attempts: Arc<Attempts>,
    idle: Mutex<Vec<(Worker, Instant)>>,
    starter: OnceLock<io::Result<Starter>>,
}

/// Handle of the thread that starts workers. Workers are killed when the thread that started them
/// ends (`PR_SET_PDEATHSIG`), and a thread of the runtime may end before the process does.
struct Starter(mpsc::Sender<oneshot::Sender<io::Result<Worker>>>);

fn start_starter(program: &WorkerProgram) -> io::Result<Starter> {
    let (sender, orders) = mpsc::channel::<oneshot::Sender<io::Result<Worker>>>();
    let (program, runtime) = (program.clone(), tokio::runtime::Handle::current());
    let start_all = move || {
        let _entered = runtime.enter();
        for order in orders {
            // An order whose receiver has gone: the worker is dropped, which kills it.
            drop(order.send(Worker::start(&program)));
        }
    };
    std::thread::Builder::new().name("evaluations".into()).spawn(start_all)?;
    Ok(Starter(sender))
}

impl Starter {
    async fn start(&self) -> io::Result<Worker> {
        let (order, started) = oneshot::channel();
        let is_gone = || io::Error::other("the thread that starts workers has ended");
        self.0.send(order).map_err(|_| is_gone())?;
        started.await.map_err(|_| is_gone())?
    }
}

impl WorkerPool {
    /// Creates a pool whose workers run a program. Attempts are counted in the folder `attempts`,
    /// if one is given.
    ///
    /// # Errors
    /// The folder cannot be used. The folder cannot be used.
    pub fn new(
        program: WorkerProgram,
        limits: WorkLimits,
        attempts: Option<PathBuf>,
    ) -> io::Result<Self> {
        let shared = Shared {
            program,
            limits,
            gate: Gate::new(limits.workers.max(1), limits.waiting),
            attempts: Attempts::open(attempts)?,
            idle: Mutex::default(),
            starter: OnceLock::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl WorkerProgram {
    /// The running program with these arguments. `/proc/self/exe` starts it even if its file was
    /// replaced since.
    pub fn this_one(arguments: Vec<String>) -> Self {
        let own = Path::new("/proc/self/exe");
        let program = match own.exists() {
            true => own.to_owned(),
            false => std::env::current_exe().unwrap_or_else(|_| own.to_owned()),
        };
        Self { program, arguments }
    }
}

#[async_trait]
impl Evaluation for WorkerPool {
    async fn evaluate(&self, tenant: &TenantId, job: &Job) -> Result<Answer, EvaluationError> {
        let shared = &self.shared;
        let busy =
            || EvaluationError::busy("too many evaluations wait already: try again in a moment");
        let _place = shared.gate.enter(tenant).await.ok_or_else(busy)?;
        // After the gate: a waiting job takes no memory for its bytes.
        let (bytes, _attempt) = prepare(Arc::clone(&shared.attempts), job.clone()).await?;
        let mut deaths = 0;
        loop {
            match shared.perform(&bytes).await? {
                Ok(reply) => return read(reply).await,
                Err(Death::Before) => {}
                Err(Death::Time) => return Err(too_long(shared.limits)),
                Err(Death::Other(how)) => {
                    deaths += 1;
                    tracing::warn!(how, deaths, "an evaluation ended its worker");
                    if deaths == DEATHS_LIMIT {
                        return Err(too_large(shared.limits));
                    }
                }
            }
        }
    }
}

impl Shared {
    async fn perform(
        self: &Arc<Self>,
        job: &[u8],
    ) -> Result<Result<Reply, Death>, EvaluationError> {
        let mut worker = self.worker().await?;
        let performed = worker.perform(job, self.limits.timeout).await;
        // A worker that died or that announced its end is dropped, never reused.
        if performed.as_ref().is_ok_and(|reply| !reply.is_last) {
            self.keep(worker);
        }
        Ok(performed)
    }

    /// Returns the idle worker that worked last, so that surplus ones stay idle and end; else
    /// starts one.
    async fn worker(&self) -> Result<Worker, EvaluationError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some((worker, _)) = idle {
            return Ok(worker);
        }
        let started = match self.starter.get_or_init(|| start_starter(&self.program)) {
            Ok(starter) => starter.start().await,
            Err(error) => Err(io::Error::other(error.to_string())),
        };
        started.map_err(|error| {
            tracing::error!(%error, "a worker process cannot be started");
            EvaluationError::busy("a worker process cannot be started now: try again later")
        })
    }

    fn keep(self: &Arc<Self>, worker: Worker) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push((worker, Instant::now()));
        let shared = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(IDLE).await;
            if let Some(shared) = shared.upgrade() {
                shared.end_idle();
            }
        });
    }

    fn end_idle(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since)| since.elapsed() < IDLE);
    }
}

/// Serialises the job, and marks its attempt as in progress.
// Off the runtime's threads: a job may be megabytes, and marking writes a file.
async fn prepare(attempts: Arc<Attempts>, job: Job) -> Result<(Vec<u8>, Attempt), EvaluationError> {
    let prepared = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        wire::write_job(&job, &mut bytes).map_err(|error| {
            EvaluationError::limit(format!("what is to be evaluated cannot be written: {error}"))
        })?;
        let attempt = attempts.begin(job.print())?;
        Ok((bytes, attempt))
    });
    prepared.await.map_err(|error| EvaluationError::busy(error.to_string()))?
}

async fn read(reply: Reply) -> Result<Answer, EvaluationError> {
    let read = tokio::task::spawn_blocking(move || wire::read_answer(&reply.bytes));
    let read = read.await.map_err(|error| EvaluationError::busy(error.to_string()))?;
    read.map_err(|error| EvaluationError::limit(format!("the answer cannot be read: {error}")))
}

fn too_long(limits: WorkLimits) -> EvaluationError {
    let seconds = limits.timeout.as_secs_f64();
    EvaluationError::limit(format!(
        "it takes longer than {seconds} s: loop over less, or make the schema simpler"
    ))
}

fn too_large(limits: WorkLimits) -> EvaluationError {
    let memory = limits.memory_mib;
    EvaluationError::limit(format!(
        "it takes more than {memory} MiB of memory: yield less, or nest the schema less deeply"
    ))
}
