//! The live page as a person with a browser sees it: what it shows, that it moves, and that it never shows a healthy value
//! that is old. Pictures of it go to `target/screenshots`.

mod nodes;

use relevo_tests::browser::{ARROW_LEFT, ESCAPE, TAB};
use relevo_tests::relevo::PATIENCE;
use relevo_tests::{Browser, Pair, Relevo, Screen, Version, wait_until};
use serde_json::Value;

const SCHEMA: &str = "
CREATE TABLE account (id int PRIMARY KEY, owner text NOT NULL, balance numeric(12,2) NOT NULL);
CREATE TABLE transfer (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account int, amount numeric(12,2));
CREATE TABLE \"<b>odd</b> & name\" (id int PRIMARY KEY);
INSERT INTO account SELECT n, 'owner ' || n, 100 FROM generate_series(1, 5000) n;
INSERT INTO transfer (account, amount) SELECT n % 5000 + 1, n FROM generate_series(1, 20000) n;
";

const WIDE: Screen = Screen { width: 1600, height: 1000, dark: false };
const NARROW: Screen = Screen { width: 360, height: 780, dark: false };

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Opens the page of a Relevo, and waits until it has heard of it.
async fn open(browser: &Browser, relevo: &Relevo) {
    browser.open(&format!("http://127.0.0.1:{}/", relevo.http_port())).await;
    browser
        .wait_for("the page has an answer", "document.title", |title| text(title).ends_with("– Relevo"))
        .await;
}

/// The picture in words.
async fn picture(browser: &Browser, what: &str, parts: &[&str]) -> String {
    let label = "document.getElementById('picture').getAttribute('aria-label')";
    let is_so = |label: &Value| parts.iter().all(|part| text(label).contains(part));
    let label = browser.wait_for(what, label, is_so).await;
    // What is said is also drawn.
    let drawn = browser.run("return document.getElementById('picture').textContent").await;
    for part in parts {
        let word = part.split([' ', ',']).next().expect("a word");
        assert!(text(&drawn).contains(word), "{word:?} is not in the picture: {drawn}");
    }
    text(&label).to_owned()
}

/// A number that is shown beside its name.
async fn fact(browser: &Browser, list: &str, name: &str) -> String {
    let script = format!(
        "for (const pair of document.getElementById('{list}').children) \
         if (pair.firstChild.textContent === '{name}') return pair.lastChild.textContent; return null"
    );
    let value = browser.run(&script).await;
    value.as_str().unwrap_or_else(|| panic!("{list} does not say {name:?}")).to_owned()
}

/// Everything comes from where the page comes from, and the console has nothing to complain about.
async fn is_self_contained(browser: &Browser, relevo: &Relevo) {
    let origin = format!("http://127.0.0.1:{}/", relevo.http_port());
    let requests = browser.requests().await;
    assert!(requests.iter().any(|url| *url == format!("{origin}api/history")), "{requests:?}");
    let strangers: Vec<_> =
        requests.iter().filter(|url| !url.starts_with(&origin) && !url.starts_with("data:")).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
    let said = browser.console().await;
    assert!(said.is_empty(), "{said:?}");
}

/// With Tab alone one gets to everything, in the order in which it is shown, and sees where one is.
async fn works_without_a_mouse(browser: &Browser) {
    browser.run("document.activeElement.blur(); window.scrollTo(0, 0)").await;
    let here = "const e = document.activeElement; return e === document.body ? '' : \
        e.closest('figure')?.id || e.id || e.getAttribute('href')";
    let mut order = Vec::new();
    for _ in 0..20 {
        browser.press(TAB).await;
        let at = browser.run(here).await;
        if text(&at).is_empty() || order.first() == Some(&at) {
            break;
        }
        let outline = browser.run("return getComputedStyle(document.activeElement).outlineStyle").await;
        assert_eq!(outline, "solid", "{at} does not show that it has the focus");
        order.push(at);
    }
    let expected = [
        "chart-lag",
        "chart-transactions",
        "chart-changes",
        "chart-slot",
        "tables-scroll",
        "/metrics",
        "/api/status",
        "/api/history",
        "/api/tables",
        "/healthz",
        "/readyz",
    ];
    assert_eq!(order, expected);
    // Every point of a line can be had in words.
    let slider = "document.querySelector('#chart-changes svg')";
    browser.run(&format!("{slider}.focus()")).await;
    let said = format!("{slider}.getAttribute('aria-valuetext')");
    browser.wait_for("what is so now", &said, |said| text(said).starts_with("now ")).await;
    browser.press(ARROW_LEFT).await;
    browser.press(ARROW_LEFT).await;
    browser.wait_for("what was so", &said, |said| text(said).contains(" ago")).await;
    let readout = browser.run("return document.querySelector('#chart-changes .readout').textContent").await;
    assert!(text(&readout).contains(" ago"), "{readout}");
    browser.press(ESCAPE).await;
    browser.wait_for("the cursor is gone", &said, |said| text(said).starts_with("now ")).await;
    browser.run("document.activeElement.blur()").await;
}

/// Looks at the page with this screen, and waits until it is drawn for it.
async fn drawn_at(browser: &Browser, screen: Screen) {
    browser.look_with(screen).await;
    let fits = format!(
        "innerWidth === {} && (picture => picture.viewBox.baseVal.width === picture.clientWidth)(document.getElementById('picture'))",
        screen.width
    );
    browser.wait_for("it is drawn for the screen", &fits, |fits| *fits == true).await;
}

/// Both colour schemes, at both widths: nothing is cut off, all can be told from its ground, and a picture of each.
async fn looks_well(browser: &Browser, name: &str) {
    for screen in [WIDE, NARROW] {
        let mut grounds = Vec::new();
        for dark in [false, true] {
            drawn_at(browser, Screen { dark, ..screen }).await;
            let too_wide = browser
                .run("return [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 \
                      && !e.closest('.scroll')).map(e => e.outerHTML.slice(0, 80))")
                .await;
            assert_eq!(too_wide, Value::Array(Vec::new()), "at {screen:?}");
            let colors = browser
                .run("const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]")
                .await;
            assert_ne!(colors[0], colors[1]);
            grounds.push(colors[1].clone());
            let scheme = if dark { "dark" } else { "light" };
            browser.screenshot(&format!("{name}-{scheme}-{}", screen.width)).await;
        }
        assert_ne!(grounds[0], grounds[1], "the schemes differ");
    }
    // Those of README.
    for (scheme, dark) in [("light", false), ("dark", true)] {
        drawn_at(browser, Screen { width: 1000, height: 800, dark }).await;
        browser.screenshot_down_to("past-section", &format!("{name}-{scheme}")).await;
    }
    browser.look_with(WIDE).await;
}

/// The lists beside the picture: tables, slot, errors, comparison.
async fn says_the_rest(browser: &Browser) {
    let tables = "[...document.getElementById('tables').rows].map(row => [...row.cells].map(cell => cell.textContent))";
    let all_stream = |rows: &Value| {
        let rows = rows.as_array().expect("rows");
        rows.len() == 3 && rows.iter().all(|row| row[1] == "streaming" && row[2] == "all")
    };
    let rows = browser.wait_for("the tables", tables, all_stream).await;
    let names: Vec<&str> = rows.as_array().expect("rows").iter().map(|row| text(&row[0])).collect();
    // What a server says is text, whatever it looks like.
    assert_eq!(names, ["public.transfer", "public.account", "public.<b>odd</b> & name"]);
    assert_eq!(rows[0][3], "20,000");
    assert_eq!(browser.run("return document.querySelectorAll('b').length").await, 0);
    assert!(fact(browser, "slot-facts", "Kept for this standby").await.ends_with('B'));
    assert!(fact(browser, "slot-facts", "May still be written").await.ends_with("GiB"));
    let compared = "document.getElementById('verified-text').textContent";
    browser
        .wait_for("the comparison", compared, |text| *text == "Nothing was compared: relevo verify does.")
        .await;
    let errors = "document.getElementById('errors-text').textContent";
    let none = "None since this Relevo started. None is written down.";
    browser.wait_for("no errors", errors, |text| *text == none).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_live_page_shows_a_flow_and_says_when_nobody_answers() {
    let pair = Pair::builder(Version::V15, Version::V15)
        .source(|source| source.set("max_slot_wal_keep_size", "2GB"))
        .start()
        .await;
    pair.source.sql(SCHEMA).await;
    let mut relevo = pair.relevo().start();
    relevo.wait_until_streaming().await;
    let browser = Browser::start().await;
    browser.look_with(WIDE).await;
    open(&browser, &relevo).await;

    let words = ["source (primary, answers)", "target (standby, answers)", "streaming", "behind"];
    let label = picture(&browser, "the picture of a flow", &words).await;
    assert!(label.starts_with("From source") && label.contains(" to target"), "{label}");
    assert_eq!(browser.text("state").await, "streaming");
    says_the_rest(&browser).await;

    // The numbers move with what happens.
    let before = fact(&browser, "positions", "Changes applied").await;
    let load = "INSERT INTO transfer (account, amount) SELECT 1, n FROM generate_series(1, 500) n";
    wait_until("every line has points, and changes are among them", PATIENCE, async || {
        pair.source.sql(load).await;
        let lines = "return ['lag', 'transactions', 'changes', 'slot'].map(name => \
            document.querySelector(`#chart-${name} svg`)).map(svg => [Number(svg.dataset.points), \
            svg.querySelectorAll('polyline').length])";
        let lines = browser.run(lines).await;
        let drawn = |line: &Value| line[0].as_u64() >= Some(3) && line[1].as_u64() >= Some(1);
        let moved = browser.run("return document.querySelector('#chart-changes .readout').textContent").await;
        lines.as_array().expect("four lines").iter().all(drawn) && text(&moved) != "highest: 0"
    })
    .await;
    let moved = fact(&browser, "positions", "Changes applied").await;
    assert_ne!(before, moved);
    pair.settle().await;

    // A row that is missing on the target is counted, and written down.
    pair.target.sql("DELETE FROM account WHERE id = 7").await;
    pair.source.sql("UPDATE account SET balance = 0 WHERE id = 7").await;
    let errors = "document.getElementById('errors-text').textContent";
    let counted = "1 since this Relevo started. One is written down: relevo errors lists it.";
    browser.wait_for("the missing row", errors, |text| *text == counted).await;

    works_without_a_mouse(&browser).await;
    looks_well(&browser, "page").await;
    is_self_contained(&browser, &relevo).await;

    browser.reduce_motion().await;
    let motion = "matchMedia('(prefers-reduced-motion: reduce)').matches && document.getAnimations().length";
    browser.wait_for("nothing moves", motion, |running| *running == 0).await;
    says_when_nobody_answers(&browser, &mut relevo).await;
    relevo.terminate();
}

/// A frozen healthy value is the worst lie.
async fn says_when_nobody_answers(browser: &Browser, relevo: &mut Relevo) {
    relevo.kill();
    let alarm =
        "document.getElementById('alarm').checkVisibility() && document.getElementById('alarm').innerText";
    let old = |said: &Value| text(said).contains("Relevo does not answer. What is below is old.");
    browser.wait_for("the page says so", alarm, old).await;
    let aged = |said: &Value| text(said).contains("The last answer came 3 s ago");
    browser.wait_for("and for how long", alarm, aged).await;
    assert_eq!(browser.text("state").await, "no answer");
    picture(browser, "nothing is known of the flow", &["not known", "was: streaming"]).await;
    let shown = browser.run("return getComputedStyle(document.querySelector('main')).opacity").await;
    assert_eq!(shown, "0.5");
    let lag = browser.run("return document.querySelector('#chart-lag .now').textContent").await;
    assert!(text(&lag).starts_with("was ") && text(&lag).contains(" ago"), "{lag}");
    let role = browser.run("return document.getElementById('alarm-text').getAttribute('role')").await;
    assert_eq!(role, "alert");
    let title = browser.run("return document.title").await;
    assert!(text(&title).contains("no answer"), "{title}");
    browser.screenshot("page-no-answer-light-1600").await;

    relevo.restart();
    browser.wait_for("it answers again", alarm, |shown| *shown == false).await;
    picture(browser, "the flow goes on", &["source (primary, answers)", "streaming"]).await;
}
