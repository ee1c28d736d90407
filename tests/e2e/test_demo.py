"""The demo ends by naming the page of one of its runs."""

from privfl.cli import demo


def test_the_demo_names_the_page_that_it_has_made(privfl, monkeypatch, tmp_path):
    assert demo.ON_THE_PAGE in demo.LAYERS
    monkeypatch.setattr(demo, "ON_THE_PAGE", "none")
    monkeypatch.setattr(demo, "LAYERS", {"none": demo.LAYERS["none"]})
    monkeypatch.setattr(demo, "BASE", {**demo.BASE, "rounds": 1, "model": "softmax"})
    done = privfl("demo", "--out", tmp_path / "shown")
    assert done.returncode == 0, done.stderr
    page = tmp_path / "shown" / "report.html"
    assert done.stderr.rstrip().endswith(str(page)), "it is the last thing that is said"
    text = page.read_text()
    assert "Attacked through" in text
    assert "The server reads" in text
    again = privfl("demo", "--out", tmp_path / "shown")
    assert again.returncode == 2
    assert "is not empty" in again.stderr
