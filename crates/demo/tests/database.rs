//! One test body for the database, over SQLite in a file and, where it is installed, PostgreSQL.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mtcache::trading::{Extra, OrderSide, SizingRequest};
use mtcache_demo::ErrorKind;
use mtcache_demo::backtest;
use mtcache_demo::bars::shipped;
use mtcache_demo::crossover::Strategy;
use mtcache_demo::database::Database;
use mtcache_demo::sizing::{RiskLimits, size};

async fn keeps_what_the_services_store(database: &Database) {
    let series = shipped(jiff::Timestamp::now()).unwrap();
    let aapl = series.iter().find(|series| series.symbol == "AAPL").unwrap();
    database.save_bars(aapl).await.unwrap();
    // Storing the same bars again changes nothing.
    database.save_bars(aapl).await.unwrap();
    let read = database.bars("AAPL", 10_000).await.unwrap();
    assert_eq!(&read, aapl);
    let newest = database.bars("AAPL", 30).await.unwrap();
    assert_eq!(newest.bars, aapl.bars[aapl.bars.len() - 30..]);
    assert_eq!(database.bars("NONE", 5).await.unwrap_err().kind(), ErrorKind::Unknown);

    let strategy = Strategy::new("AAPL", 10, 50).unwrap();
    database.save_strategy(&strategy).await.unwrap();
    database.save_strategy(&strategy).await.unwrap();
    assert_eq!(database.strategy(&strategy.id).await.unwrap(), strategy);
    assert_eq!(database.strategies_of("AAPL").await.unwrap(), std::slice::from_ref(&strategy));
    assert_eq!(database.strategy("none").await.unwrap_err().kind(), ErrorKind::Unknown);

    let last_bar = aapl.last().unwrap().time;
    let result = backtest::run(&strategy, &read);
    assert_eq!(database.backtest(&strategy.id, last_bar).await.unwrap(), None);
    database.save_backtest(last_bar, &result).await.unwrap();
    assert_eq!(database.backtest(&strategy.id, last_bar).await.unwrap(), Some(result));
    assert_eq!(database.backtest(&strategy.id, last_bar + 1).await.unwrap(), None, "older bars do not count");

    let request = SizingRequest {
        symbol: "AAPL".into(),
        strategy_id: strategy.id.clone(),
        signal_strength: 0.8,
        current_price: 430.47,
        volatility: None,
        stop_loss_percent: None,
        risk_per_trade_percent: None,
        order_side: OrderSide::Buy,
        extra: Extra::new(),
    };
    let answer = size(&request, &newest, &RiskLimits::default()).unwrap();
    let hash = request.hash().unwrap();
    for decided_at in [100, 200, 200] {
        database.record_position_size(&request, &hash, decided_at, &answer).await.unwrap();
    }
    let (count, exposure) = database.exposure_since("AAPL", 100).await.unwrap();
    assert_eq!(count, 2);
    assert!((exposure - 2.0 * answer.recommended_size_usd).abs() < 1e-6);
    assert_eq!(database.exposure_since("AAPL", 300).await.unwrap().0, 0);
}

#[tokio::test]
async fn sqlite_keeps_what_the_services_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("demo.db");
    let database = Database::open_file(&path).await.unwrap();
    keeps_what_the_services_store(&database).await;
    database.close().await;
    let again = Database::open_file(&path).await.unwrap();
    assert_eq!(
        again.strategies_of("AAPL").await.unwrap().len(),
        1,
        "it is all still there after opening again"
    );
}

#[tokio::test]
async fn bad_url_says_what_to_give() {
    for url in ["mysql://localhost/x", "nonsense", "sqlite:///nowhere/at/all/demo.db"] {
        let error = Database::open(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Database);
        assert!(error.to_string().contains("DATABASE_URL"), "{error}");
    }
}

#[tokio::test]
async fn postgres_keeps_what_the_services_store() {
    let Some(server) = Postgres::start() else {
        eprintln!("skipped: no PostgreSQL server programs on this machine");
        return;
    };
    let database = Database::open(&server.url()).await.unwrap();
    keeps_what_the_services_store(&database).await;
    database.close().await;
}

/// A PostgreSQL server of this test's own, on a Unix socket in a temporary folder.
struct Postgres {
    folder: tempfile::TempDir,
    programs: PathBuf,
}

impl Postgres {
    fn start() -> Option<Self> {
        let programs = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten().next()?.path().join("bin");
        let folder = tempfile::tempdir().unwrap();
        let server = Self { folder, programs };
        // The server refuses to run as root, so its folder and it belong to its own user then.
        let path = server.folder.path();
        if is_root() {
            assert!(run(Command::new("chown").arg("postgres").arg(path)));
        }
        let data = path.join("data");
        assert!(run(server.program("initdb").args(["-U", "demo", "-A", "trust", "-N", "-D"]).arg(&data)));
        let options = format!("-k {} -c listen_addresses= -F", path.display());
        let log = path.join("log");
        assert!(run(server
            .program("pg_ctl")
            .args(["start", "-w", "-o", &options, "-l"])
            .arg(log)
            .arg("-D")
            .arg(&data)));
        Some(server)
    }

    fn url(&self) -> String {
        let folder = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgres://demo@{folder}/postgres")
    }

    fn program(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        if !is_root() {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        run(self
            .program("pg_ctl")
            .args(["stop", "-m", "immediate", "-D"])
            .arg(self.folder.path().join("data")));
    }
}

fn run(command: &mut Command) -> bool {
    command
        .current_dir("/")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    Path::new("/proc/self").metadata().is_ok_and(|metadata| metadata.uid() == 0)
}
