use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::parse_from_arguments(std::iter::once("tidegate").chain(line.split_whitespace()))
}

fn paths(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(PathBuf::from).collect()
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn run_takes_everything_or_nothing() {
    let Command::Run(bare) = parse("run").unwrap().command else {
        panic!("not run");
    };
    assert!(bare.files.is_empty() && bare.listen.is_empty());
    assert_eq!((bare.admin, bare.workers), (None, None));
    assert_eq!((bare.log.log_format, bare.log.filter), (Format::Text, None));

    let line = "run -f a,b.yaml c -f d --listen 127.0.0.1:0 [::1]:80 --listen 0.0.0.0:8080 \
                --admin 127.0.0.1:1 --workers 3 --takeover sock --log-format json --log debug";
    let Command::Run(all) = parse(line).unwrap().command else {
        panic!("not run");
    };
    assert_eq!(all.files, paths(&["a,b.yaml", "c", "d"]));
    let listen: Vec<_> = all.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["127.0.0.1:0", "[::1]:80", "0.0.0.0:8080"]);
    assert_eq!(all.admin, Some("127.0.0.1:1".parse().unwrap()));
    assert_eq!(all.workers, Some(3));
    assert_eq!(all.takeover, Some(PathBuf::from("sock")));
    assert_eq!(all.log.log_format, Format::Json);
    assert_eq!(all.log.filter.as_deref(), Some("debug"));
}

#[test]
fn a_log_filter_is_made_of_levels() {
    for fine in [
        "error",
        "warn",
        "INFO",
        "debug",
        "off",
        "",
        "info,tidegate=debug",
        "tidegate::control=debug,h2=off",
        "tidegate[x{a=b,c}]=debug",
    ] {
        assert_eq!(filter(fine).as_deref(), Ok(fine));
    }
    for wrong in [
        "loud",
        "trace",
        "info,loud",
        "tidegate",
        "tidegate=loud",
        "tidegate=trace",
    ] {
        let line = format!("run --log {wrong}");
        let error = parse(&line).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{wrong}");
        let said = error.to_string();
        let words = "write error, warn, info, debug or off, or MODULE=LEVEL";
        assert!(
            said.lines().next().is_some_and(|line| line.contains(words)),
            "{said}"
        );
    }
}

#[test]
fn demo_listens_where_it_is_told() {
    for (line, address) in [
        ("demo", "127.0.0.1:8080"),
        ("demo --listen 127.0.0.1:0", "127.0.0.1:0"),
    ] {
        let Command::Demo(args) = parse(line).unwrap().command else {
            panic!("not demo");
        };
        assert_eq!(args.listen.to_string(), address);
    }
}

#[test]
fn validate_and_explain_take_files() {
    let Command::Validate(args) = parse("validate -f a b --format json").unwrap().command else {
        panic!("not validate");
    };
    assert_eq!(args.files, paths(&["a", "b"]));
    assert_eq!(args.format, Format::Json);
    let Command::Explain(args) = parse("explain -f a -f b http://h/").unwrap().command else {
        panic!("not explain");
    };
    assert_eq!(args.files, paths(&["a", "b"]));
    assert_eq!(args.admin, None);
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_is_wrong() {
    for (line, word) in [
        ("", "Usage"),
        ("frobnicate", "frobnicate"),
        ("run --takeover", "--takeover"),
        ("run --listen nowhere", "127.0.0.1:8080"),
        ("run --admin 9901", "127.0.0.1:8080"),
        ("run --workers many", "many"),
        ("run --log-format xml", "json"),
        ("run tidegate.yaml", "tidegate.yaml"),
        ("validate", "--file"),
        ("validate -f a --format xml", "json"),
        ("explain -f a", "URL"),
        ("explain http://h/", "--admin"),
        ("explain -f a --admin http://b:1 http://h/", "not both"),
        ("explain --admin https://b:1 http://h/", "http://"),
        ("explain -f a /path", "Host"),
        ("explain -f a -H x http://h/", "Name: value"),
        ("explain -f a -X G,T http://h/", "G,T"),
        ("demo --listen 8080", "127.0.0.1:8080"),
        ("schema now", "now"),
    ] {
        let error = parse(line).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
        assert!(error.to_string().contains(word), "{line}: {error}");
    }
}

#[test]
fn help_and_version_are_no_failures() {
    for line in ["--version", "--help", "help", "help run", "explain --help"] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 0, "{line}");
    }
    let help = parse("help").unwrap_err().to_string();
    for shown in ["run", "validate", "explain", "demo", "schema", "Examples:"] {
        assert!(help.contains(shown), "{shown} is missing: {help}");
    }
    for hidden in ["supervise", "demo-service"] {
        assert!(!help.contains(hidden), "{hidden} is shown: {help}");
    }
}

#[test]
fn every_flag_exists_as_a_variable() {
    let command = Cli::command();
    let shown = command.get_subcommands().filter(|c| !c.is_hide_set());
    for subcommand in shown {
        let flags = subcommand.get_arguments().filter(|a| !a.is_positional());
        for flag in flags.filter(|flag| !matches!(flag.get_id().as_str(), "help" | "version")) {
            let variable = flag.get_env().and_then(std::ffi::OsStr::to_str);
            let named = variable.is_some_and(|name| name.starts_with("TIDEGATE_"));
            assert!(named, "{} {}", subcommand.get_name(), flag.get_id());
        }
    }
}

#[test]
fn a_variable_names_several_files_with_commas() {
    let split = split_at_commas(&paths(&["a.yaml,dir/b,,c"]));
    assert_eq!(split, paths(&["a.yaml", "dir/b", "c"]));
}

#[test]
fn a_flag_beats_a_variable_and_a_file_beats_an_admin_address() {
    let explain = |files: &[&str], admin: Option<&str>| explain::ExplainArgs {
        files: paths(files),
        admin: admin.map(|text| text.parse().unwrap()),
        method: hyper::Method::GET,
        headers: Vec::new(),
        audience: explain::Audience::Public,
        url: "http://h/".parse().unwrap(),
    };
    let admin = Some("127.0.0.1:9901");
    for (files_flag, admin_flag, asks_admin) in [
        (true, false, false),
        (false, true, true),
        (false, false, false),
    ] {
        let mut args = explain(&["a"], admin);
        args.settle(files_flag, admin_flag).unwrap();
        assert_eq!(args.admin.is_some(), asks_admin);
    }
    let mut variable_only = explain(&[], admin);
    variable_only.settle(false, false).unwrap();
    assert!(variable_only.admin.is_some());
}
