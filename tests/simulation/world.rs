//! A small world: gateways and executors that lose their memory, clients that lose patience, compactors and collectors of
//! garbage that die at work, and between all of them a network that loses, delays and stalls.

use crate::catalog::{self as simulated, SimulatedCatalog};
use crate::check::check;
use crate::client::{self, Habits};
use crate::history::{Action, CallId, History, Outcome};
use crate::ledger::{Ledger, Recorded, fragment_of};
use bytes::Bytes;
use catalog::MemoryCatalog;
use executor_worker::{Executor, cache::Cache};
use gateway_worker::memory::Memory;
use gateway_worker::{Executors, Gateway, Settings, Spent};
use http::Request;
use model::{CollectionId, keys, limits};
use query::{Answer, PlanError, QueryPlan};
use runtime::{Runtime, SimulatedRuntime, within};
use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::ops::Range;
use std::rc::Rc;
use storage::{
    Etag, Fate, Fault, Faulty, MemoryStore, ObjectStore, OperationKind, PutError, PutMode, ReadError, Retry,
};

pub(crate) const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Steps after which a world that has not come to rest never will.
const STEPS_MAX: usize = 400_000;
const STORE_NAME: &str = "simulated";

/// What a seed makes of the world, besides the order of events.
#[derive(Clone, Debug)]
pub(crate) struct Climate {
    clients: usize,
    calls: usize,
    collections: usize,
    habits: Habits,
    /// Longest way between two machines, in ms.
    hop_ms_max: u64,
    /// Of 1,000 operations of store and catalog, so many meet a fault.
    faults_per_mille: u64,
    /// Of 1,000 operations, so many find their machine suspended meanwhile.
    freezes_per_mille: u64,
    /// Of 1,000 operations of compactors and collectors, so many more.
    suspensions_per_mille: u64,
    /// For how long, in ms, at most one of these.
    freezes_ms: &'static [u64],
    /// Of 1,000 calls, so many find a gateway or an executor that has lost its memory.
    cold_per_mille: u64,
    /// Of 1,000 calls, so many are given up by their client soon.
    impatient_per_mille: u64,
    /// Pauses of clients, in ms, each up to one of these.
    pauses_ms: &'static [u64],
    /// Pauses of compactors and of garbage collection, in ms; without, there are neither.
    pub(crate) housekeeping_ms: Option<u64>,
    pub(crate) compactors: u64,
    pub(crate) collectors: u64,
    /// A compactor that writes an object may need up to so long for it, in ms.
    pub(crate) upload_ms: u64,
    /// Bytes of memory of a compactor, one of these each time.
    pub(crate) memory_bytes: &'static [usize],
    /// For so long what nobody names any more is kept, in ms.
    pub(crate) grace_ms: u64,
    /// Of 1,000 compactions and collections of garbage, so many end with the death of their machine.
    pub(crate) deaths_per_mille: u64,
}

/// Which worlds a seed may bring: [`Season::of`] it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Season {
    /// Anything.
    Mixed,
    /// Many clients do much in little time.
    Crowded,
    /// Little happens, and meanwhile machines stand still and garbage is collected.
    Sleepy,
    /// Much is compacted, merged and collected, on machines that stand still for days.
    Tidy,
}

impl Season {
    const ALL: [Season; 4] = [Season::Crowded, Season::Sleepy, Season::Mixed, Season::Tidy];

    /// Of four seeds in a row, one brings a crowd, one brings sleep, one brings order.
    pub(crate) fn of(seed: u64) -> Self {
        Season::ALL[usize::try_from(seed % 4).unwrap_or(0)]
    }
}

impl Climate {
    /// Some worlds are calm in one respect and wild in another: faults that hide each other are found alone.
    fn draw(season: Season, runtime: &SimulatedRuntime) -> Self {
        let paces: [&[u64]; 4] = [
            &[1, 20],
            &[1, 20, 200, 2 * MINUTE_MS],
            &[5, 50, 2 * MINUTE_MS, 3 * HOUR_MS],
            &[5, 5, 20 * MINUTE_MS, 3 * HOUR_MS, 30 * HOUR_MS],
        ];
        let pauses_ms = *runtime.pick(&paces);
        let longest_ms = pauses_ms[pauses_ms.len() - 1];
        let mixed = Climate {
            clients: *runtime.pick(&[2, 3, 3, 4]),
            calls: *runtime.pick(&[5, 8, 12]),
            collections: *runtime.pick(&[1, 1, 1, 2]),
            habits: Habits { deletions: 12, ids: *runtime.pick(&[4, 4, 8]) },
            hop_ms_max: *runtime.pick(&[2, 10, 10, 100]),
            faults_per_mille: *runtime.pick(&[0, 30, 100, 250]),
            freezes_per_mille: *runtime.pick(&[0, 0, 10, 40]),
            suspensions_per_mille: *runtime.pick(&[0, 0, 20]),
            freezes_ms: &[30 * SECOND_MS, 2 * MINUTE_MS, 20 * MINUTE_MS, 3 * HOUR_MS, 12 * HOUR_MS],
            cold_per_mille: *runtime.pick(&[0, 50, 300]),
            impatient_per_mille: *runtime.pick(&[0, 0, 100]),
            pauses_ms,
            housekeeping_ms: *runtime.pick(&[None, Some(longest_ms / 10), Some(longest_ms / 2), Some(longest_ms)]),
            compactors: 2,
            upload_ms: 0,
            collectors: *runtime.pick(&[1, 1, 2]),
            // Little enough that a long log takes several steps.
            memory_bytes: &[2_000, 20_000, 1 << 30],
            grace_ms: *runtime.pick(&[0, 0, 20 * MINUTE_MS, DAY_MS]),
            deaths_per_mille: *runtime.pick(&[0, 100]),
        };
        let few_faults = *runtime.pick(&[0, 0, 30]);
        match season {
            Season::Mixed => mixed,
            Season::Crowded => Climate {
                clients: 4,
                calls: 10,
                collections: 1,
                habits: Habits { deletions: *runtime.pick(&[12, 40]), ids: 4 },
                freezes_per_mille: 0,
                pauses_ms: paces[0],
                housekeeping_ms: None,
                ..mixed
            },
            Season::Sleepy => Climate {
                clients: 4,
                calls: 12,
                collections: 1,
                faults_per_mille: few_faults,
                freezes_per_mille: *runtime.pick(&[30, 60]),
                pauses_ms: &[5, 20 * MINUTE_MS, 3 * HOUR_MS],
                housekeeping_ms: Some(20 * MINUTE_MS),
                ..mixed
            },
            Season::Tidy => Climate {
                clients: 3,
                calls: 12,
                collections: 1,
                habits: Habits { deletions: 4, ids: 12 },
                faults_per_mille: few_faults,
                freezes_per_mille: *runtime.pick(&[0, 5]),
                suspensions_per_mille: *runtime.pick(&[30, 80]),
                freezes_ms: &[20 * MINUTE_MS, 40 * MINUTE_MS, 2 * HOUR_MS, 30 * HOUR_MS],
                pauses_ms: &[5, 20 * MINUTE_MS, 3 * HOUR_MS],
                housekeeping_ms: Some(20 * MINUTE_MS),
                compactors: *runtime.pick(&[1, 2, 3]),
                upload_ms: 20 * MINUTE_MS,
                collectors: *runtime.pick(&[1, 2]),
                memory_bytes: &[2_000],
                grace_ms: *runtime.pick(&[0, 0, 20 * MINUTE_MS]),
                ..mixed
            },
        }
    }
}

/// What lies between the machines.
pub(crate) struct Network {
    pub(crate) runtime: SimulatedRuntime,
    pub(crate) climate: Climate,
    /// Nothing fails any more.
    pub(crate) quiet: Cell<bool>,
    trace: RefCell<Option<String>>,
}

/// What becomes of a call of the catalog.
#[derive(Debug, Default)]
pub(crate) struct CatalogFate {
    pub(crate) there_ms: u64,
    pub(crate) back_ms: u64,
    pub(crate) request_lost: bool,
    pub(crate) reply_lost: bool,
}

impl Network {
    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut *self.trace.borrow_mut() {
            let _ = writeln!(trace, "{:>12} {}", self.runtime.now().0 % 1_000_000_000_000, what());
        }
    }

    fn hop_ms(&self) -> u64 {
        1 + self.runtime.below(self.climate.hop_ms_max)
    }

    /// Suspends the running machine, if it is to be; then what it has sent arrives at some time meanwhile.
    fn freeze(&self) -> Option<u64> {
        if self.runtime.is_freezing() || !self.runtime.chance(self.climate.freezes_per_mille) {
            return None;
        }
        let longest = *self.runtime.pick(self.climate.freezes_ms);
        self.runtime.freeze(longest);
        Some(self.runtime.below(longest))
    }

    /// Suspends the running machine of a compactor or a collector, if it is to be, before it sends something or just after;
    /// `weight` times as often as usual.
    pub(crate) async fn suspend(&self, machine: &SimulatedRuntime, weight: u64) {
        let is_spared = self.quiet.get() || machine.is_freezing();
        if is_spared || !machine.chance(weight * self.climate.suspensions_per_mille) {
            return;
        }
        machine.freeze(*machine.pick(self.climate.freezes_ms));
        if machine.chance(500) {
            machine.sleep(1).await;
        }
    }

    fn store_fate(&self, kind: OperationKind, key: &str) -> Fate {
        if self.quiet.get() {
            return Fate::default();
        }
        let mut fate = Fate { there_ms: self.hop_ms(), back_ms: self.hop_ms(), fault: None };
        if let Some(ms) = self.freeze() {
            fate.there_ms = ms;
        } else if self.runtime.chance(self.climate.faults_per_mille) {
            fate.fault = Some(self.fault());
            fate.back_ms = *self.runtime.pick(&[fate.back_ms, limits::STORE_TIMEOUT_MS]);
        }
        self.note(|| format!("    {kind:?} {key} {fate:?}"));
        fate
    }

    fn fault(&self) -> Fault {
        let late = [10, 100, SECOND_MS, 15 * SECOND_MS, 2 * MINUTE_MS, 2 * HOUR_MS];
        match self.runtime.below(6) {
            0 => Fault::Refused,
            1 => Fault::RequestLost,
            2 => Fault::Taken,
            3 => Fault::LateBy { ms: self.runtime.below(*self.runtime.pick(&late)) },
            _ => Fault::ReplyLost,
        }
    }

    pub(crate) fn catalog_fate(&self, what: &str) -> CatalogFate {
        if self.quiet.get() {
            return CatalogFate::default();
        }
        let mut fate = CatalogFate { there_ms: self.hop_ms(), back_ms: self.hop_ms(), ..CatalogFate::default() };
        if self.runtime.is_freezing() || self.freeze().is_some() {
            // The catalog answers at once, and the machine hears of it when it wakes; or it asks only then.
            fate.there_ms = self.runtime.below(2);
        } else if self.runtime.chance(self.climate.faults_per_mille) {
            fate.request_lost = self.runtime.chance(500);
            fate.reply_lost = !fate.request_lost;
        }
        self.note(|| format!("    catalog {what} {fate:?}"));
        fate
    }
}

pub(crate) type Store = Faulty<Recorded, SimulatedRuntime>;

pub(crate) struct World {
    pub(crate) network: Rc<Network>,
    pub(crate) runtime: SimulatedRuntime,
    pub(crate) store: Store,
    pub(crate) catalog: SimulatedCatalog,
    pub(crate) ledger: Rc<Ledger>,
    history: History,
    pub(crate) collections: RefCell<Vec<CollectionId>>,
    gateways: Vec<RefCell<Rc<Memory>>>,
    executors: Vec<RefCell<Rc<Cache>>>,
    pub(crate) clients_left: Cell<usize>,
    /// Rows that merges have written again.
    pub(crate) merged_rows: Cell<u64>,
}

/// What an execution came to.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) acknowledged: usize,
    pub(crate) refused: usize,
    pub(crate) unknown: usize,
    pub(crate) reads: usize,
    pub(crate) zombies: usize,
    /// Times that a gc floor was raised.
    pub(crate) floors: usize,
    pub(crate) published: usize,
    pub(crate) merged_rows: u64,
    /// Objects of segments that were collected.
    pub(crate) deleted: usize,
}

impl Tally {
    /// Counts both.
    pub(crate) fn add(&mut self, other: &Tally) {
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.reads += other.reads;
        self.zombies += other.zombies;
        self.floors += other.floors;
        self.published += other.published;
        self.merged_rows += other.merged_rows;
        self.deleted += other.deleted;
    }
}

/// Lives through the world of `seed`. Errors: what cannot have been. With `trace`, what happened is written there.
pub(crate) fn live(seed: u64, trace: Option<&mut String>) -> Result<Tally, String> {
    let world = World::new(seed, trace.is_some());
    let lived = world.live();
    if let Some(trace) = trace {
        trace.push_str(&world.network.trace.take().unwrap_or_default());
    }
    lived
}

impl World {
    fn new(seed: u64, traced: bool) -> Rc<Self> {
        let runtime = SimulatedRuntime::new(seed);
        let network = Rc::new(Network {
            runtime: runtime.between_machines(),
            climate: Climate::draw(Season::of(seed), &runtime),
            quiet: Cell::new(false),
            trace: RefCell::new(traced.then(String::new)),
        });
        network.note(|| format!("{:?}", network.climate));
        let ledger = Rc::new(Ledger::default());
        let recorded = Recorded { inner: MemoryStore::default(), ledger: ledger.clone() };
        let store = Faulty::new(recorded, runtime.between_machines());
        let fates = network.clone();
        store.fates(move |kind, key| fates.store_fate(kind, key));
        let clock = runtime.between_machines();
        let inner = MemoryCatalog::with_clock(move || clock.now());
        let inner = simulated::Recorded { inner, ledger: ledger.clone(), clock: runtime.between_machines() };
        Rc::new(World {
            catalog: SimulatedCatalog { network: network.clone(), inner, of_keeper: false },
            ledger,
            store,
            history: History::default(),
            collections: RefCell::default(),
            gateways: (0..2).map(|_| RefCell::default()).collect(),
            executors: (0..2).map(|_| RefCell::default()).collect(),
            clients_left: Cell::new(network.climate.clients),
            merged_rows: Cell::new(0),
            runtime,
            network,
        })
    }

    fn live(self: &Rc<Self>) -> Result<Tally, String> {
        self.act(async |world| world.begin().await)?;
        for client in 0..self.network.climate.clients {
            let world = self.clone();
            self.runtime.spawn(async move { world.client(client).await });
        }
        for number in 0..self.network.climate.compactors {
            let world = self.clone();
            self.runtime.spawn(async move { world.compacts(number).await });
        }
        for number in 0..self.network.climate.collectors {
            let world = self.clone();
            self.runtime.spawn(async move { world.collects(number).await });
        }
        if !self.runtime.run(STEPS_MAX) {
            return Err("the world does not come to rest".to_owned());
        }
        self.act(async |world| world.end().await)?;
        match self.ledger.violation.take() {
            Some(violation) => Err(violation),
            None => self.judge(),
        }
    }

    /// Does one thing while the world stands still.
    fn act(self: &Rc<Self>, action: impl AsyncFnOnce(Rc<World>) + 'static) -> Result<(), String> {
        self.network.quiet.set(true);
        let world = self.clone();
        self.runtime.spawn(async move { action(world).await });
        let rests = self.runtime.run(STEPS_MAX);
        self.network.quiet.set(false);
        rests.then_some(()).ok_or_else(|| "the world does not come to rest".to_owned())
    }

    async fn begin(&self) {
        let marker = keys::probe_passed(STORE_NAME);
        self.store.put(&marker, "passed".into(), PutMode::Overwrite).await.expect("nothing fails yet");
        for n in 0..self.network.climate.collections {
            let body = serde_json::json!({ "name": format!("collection-{n}") }).to_string();
            let request = Request::builder().method("POST").uri(client::COLLECTIONS).body(body.into());
            let created = |response: &http::Response<Bytes>| {
                let created: serde_json::Value = serde_json::from_slice(response.body()).expect("JSON");
                let id = created["id"].as_str().and_then(CollectionId::parse).expect("an id");
                self.collections.borrow_mut().push(id);
            };
            self.send(0, 0, request.expect("a valid request"), created).await;
        }
    }

    /// What is on its way arrives; then strong reads by those who remember and by those who do not, before and after
    /// everything is tidied up.
    async fn end(&self) {
        self.store.settle().await;
        for _ in 0..2 {
            self.read_all().await;
            for collection in self.all() {
                self.call(0, collection, Action::Write(client::last_changes()), None).await;
            }
            self.forget();
        }
        self.read_all().await;
        self.tidy_up().await;
        self.read_all().await;
        self.forget();
        self.read_all().await;
    }

    async fn read_all(&self) {
        for collection in self.all() {
            for gateway in 0..self.gateways.len() {
                self.call(gateway, collection, Action::Get { ids: None, n: None }, None).await;
            }
        }
    }

    pub(crate) fn all(&self) -> Vec<CollectionId> {
        self.collections.borrow().clone()
    }

    fn forget(&self) {
        self.gateways.iter().for_each(|gateway| drop(gateway.take()));
        self.executors.iter().for_each(|executor| drop(executor.take()));
    }

    fn judge(&self) -> Result<Tally, String> {
        let calls: Vec<_> = self.history.calls().into_iter().enumerate().collect();
        for collection in self.collections.borrow().iter() {
            let own: Vec<_> = calls.iter().filter(|(_, call)| call.collection == *collection).cloned().collect();
            check(&own, &self.ledger.log(*collection))?;
        }
        let count = |is: fn(&Outcome) -> bool| calls.iter().filter(|(_, call)| is(&call.outcome)).count();
        Ok(Tally {
            acknowledged: count(|outcome| matches!(outcome, Outcome::Acknowledged { .. })),
            refused: count(|outcome| matches!(outcome, Outcome::Refused)),
            unknown: count(|outcome| matches!(outcome, Outcome::Unknown)),
            reads: count(|outcome| matches!(outcome, Outcome::Answer(_))),
            zombies: self.ledger.zombies.get() as usize,
            floors: self.ledger.floors_raised(),
            published: self.ledger.published.get() as usize,
            merged_rows: self.merged_rows.get(),
            deleted: self.ledger.deleted.get() as usize,
        })
    }

    async fn client(&self, number: usize) {
        let climate = &self.network.climate;
        for _ in 0..climate.calls {
            self.runtime.sleep(self.runtime.below(*self.runtime.pick(climate.pauses_ms) + 1)).await;
            if self.runtime.chance(climate.cold_per_mille) {
                self.runtime.pick(&self.gateways).take();
            }
            let gateway = (number + usize::from(self.runtime.chance(300))) % self.gateways.len();
            let collection = *self.runtime.pick(&self.collections.borrow());
            let action = client::draw(&self.runtime, &climate.habits, self.history.next());
            let patience = self.runtime.chance(climate.impatient_per_mille);
            let patience_ms = patience.then(|| self.runtime.below(8 * climate.hop_ms_max));
            self.call(gateway, collection, action, patience_ms).await;
        }
        self.clients_left.set(self.clients_left.get() - 1);
    }

    /// One request, from which its client goes away after `patience_ms`: then it is dropped wherever it is.
    async fn call(&self, gateway: usize, collection: CollectionId, action: Action, patience_ms: Option<u64>) {
        let id = self.history.begin(collection, action.clone());
        self.network.note(|| format!("call {id} by gateway {gateway} on {collection}: {action:?}"));
        let answered = |response: &http::Response<Bytes>| self.answered(id, &action, response);
        let request = self.send(gateway, id, client::request(collection, &action, id), answered);
        let patience_ms = patience_ms.unwrap_or(u64::from(u32::MAX) * SECOND_MS);
        if within(&self.runtime, patience_ms, request).await.is_none() {
            self.network.note(|| format!("call {id} is dropped"));
        }
    }

    fn answered(&self, id: CallId, action: &Action, response: &http::Response<Bytes>) {
        match client::outcome(action, response) {
            Ok(outcome) => {
                self.network.note(|| {
                    let text = String::from_utf8_lossy(response.body());
                    format!("call {id} is answered {}: {outcome:?} {text}", response.status())
                });
                self.history.end(id, outcome);
            }
            Err(error) => self.ledger.violated(format!("call {id}: {error}")),
        }
    }

    /// One request, and, when it is answered, what the gateway does afterwards.
    async fn send(
        &self,
        gateway: usize,
        call: CallId,
        request: Request<Bytes>,
        answered: impl FnOnce(&http::Response<Bytes>),
    ) {
        let memory = self.gateways[gateway].borrow().clone();
        let runtime = self.runtime.ahead(gateway as u64 * SECOND_MS);
        let gateway = Gateway {
            store: Retry::new(Signed { world: self, call }, runtime.clone()),
            catalog: self.catalog.clone(),
            executors: Pool { world: self },
            runtime,
            memory: &memory,
            settings: Settings {
                allow_reset: false,
                pattern_chars_max: None,
                store_name: STORE_NAME.to_owned(),
                log: |_| {},
            },
            written: RefCell::default(),
            spent: Spent::default(),
        };
        let response = gateway.handle(request, &format!("{call:032x}")).await;
        answered(&response);
        gateway.afterwards().await;
    }
}

/// The store as one request of a gateway has it: the ledger learns who sent what.
struct Signed<'a> {
    world: &'a World,
    call: CallId,
}

impl ObjectStore for Signed<'_> {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, ReadError> {
        self.world.store.get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, ReadError> {
        self.world.store.get_range(key, range).await
    }

    async fn head(&self, key: &str) -> Result<Option<u64>, ReadError> {
        self.world.store.head(key).await
    }

    async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<Etag, PutError> {
        if let Some((collection, lsn)) = fragment_of(key) {
            let World { ledger, network, .. } = self.world;
            network.note(|| format!("    call {} puts fragment {}", self.call, lsn.0));
            ledger.sent(&body, self.call);
            if mode != PutMode::Create {
                ledger.violated(format!("call {} puts {key} without a condition", self.call));
            }
            if lsn < ledger.floor_to_be_known(collection, self.world.runtime.now()) {
                ledger.violated(format!("call {} claims {key}, which is below the gc floor", self.call));
            }
        }
        self.world.store.put(key, body, mode).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<String>, ReadError> {
        self.world.store.list(prefix, start_after).await
    }

    async fn delete(&self, key: &str) -> Result<(), PutError> {
        self.world.store.delete(key).await
    }
}

/// The executors as a gateway reaches them.
struct Pool<'a> {
    world: &'a World,
}

impl Executors for Pool<'_> {
    async fn run(&self, plan: &QueryPlan) -> Result<Answer, PlanError> {
        let World { network, runtime, executors, .. } = self.world;
        // Mostly the same one, whose cache is warm.
        let number = usize::from(runtime.chance(100));
        let executor = &executors[number];
        if !network.quiet.get() && runtime.chance(network.climate.cold_per_mille) {
            executor.take();
        }
        let cache = executor.borrow().clone();
        network.runtime.sleep(network.hop_ms()).await;
        let store = Retry::new(&self.world.store, runtime.clone());
        let answer = within(
            runtime,
            limits::EXECUTORS_TIMEOUT_MS,
            Executor { store, runtime: runtime.clone(), cache: &cache, tally: executor_worker::Tally::default() }
                .run(plan),
        )
        .await;
        network.runtime.sleep(network.hop_ms()).await;
        network.note(|| {
            let ends = answer.as_ref().map(|answer| answer.as_ref().map(|answer| answer.end.next.0));
            format!("    executor {number} from {} on: {ends:?}", plan.source.manifest.watermark().0)
        });
        answer.unwrap_or_else(|| Err(PlanError::Unavailable("the executor took too long".to_owned())))
    }
}
