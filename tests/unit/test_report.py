from publisher.report import Report, Severity, collect, error, note, warning


def test_only_errors_stop_a_release():
    assert Report().ok
    assert collect([warning("a", "x", "hm"), note("b", "y", "done")]).ok
    report = collect([note("b", "y", "done"), error("c", "z", "no", hint="do it")])
    assert not report.ok
    assert [finding.check for finding in report.errors] == ["c"]


def test_reports_add_up_in_order():
    total = collect([error("a", "x", "1")]) + collect([]) + collect([note("b", "y", "2")])
    assert [finding.message for finding in total.findings] == ["1", "2"]
    assert not total.ok


def test_a_report_takes_findings_from_a_generator_once():
    report = collect(note("n", str(number), "m") for number in range(3))
    assert len(report.findings) == len(report.findings) == 3


def test_a_report_as_json():
    assert collect([error("broken-link", "/a", "points nowhere", hint="remove it")]).to_json() == {
        "ok": False,
        "findings": [
            {
                "check": "broken-link",
                "severity": "error",
                "where": "/a",
                "message": "points nowhere",
                "hint": "remove it",
            }
        ],
    }


def test_each_maker_has_its_severity():
    made = [maker("c", "w", "m").severity for maker in (error, warning, note)]
    assert made == [Severity.ERROR, Severity.WARNING, Severity.NOTE]
