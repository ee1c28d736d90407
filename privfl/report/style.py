"""How a run's pages look: on a desk, on a phone, in the dark and on paper."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#1b1f24;--soft:#59636e;
--grid:#e3e6ea;--thin:#eef0f2;--blue:#2f6fb3;--orange:#c2571a;--green:#3d9361;--warn:#fff6e5;
--edge:#f0d9a8;--good:#2c7a4b;--bad:#a32c1f}
@media(prefers-color-scheme:dark){:root{--page:#14171b;--card:#1d2126;--ink:#e6e9ed;--soft:#9aa5b1;
--grid:#353b43;--thin:#2a2f36;--blue:#6aa5e3;--orange:#e58a52;--green:#6bc192;--warn:#3a3017;
--edge:#6b5726;--good:#7fd0a0;--bad:#f08c7f}.raster{filter:invert(.9) hue-rotate(180deg)}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);overflow-wrap:break-word;
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:980px;margin:0 auto;padding:28px 20px 64px}h1{font-size:25px;margin:0 0 2px}
h2{font-size:17px;margin:34px 0 10px}a{color:var(--blue)}
.soft{color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:10px;margin:16px 0}
.tile,figure,.wide,pre,.card{background:var(--card);border:1px solid var(--grid);
border-radius:10px}
.tile{padding:9px 14px}.tile b{display:block;font-size:20px}
.tile span{color:var(--soft);font-size:13px}
.card{margin:14px 0}
.card dl{margin:0}.card div{display:grid;grid-template-columns:210px minmax(0,1fr);gap:2px 16px;
padding:7px 14px;border-bottom:1px solid var(--thin)}.card div:last-child{border-bottom:0}
.card dt{color:var(--soft)}.card dd{margin:0}
.card .bad{color:var(--bad);font-weight:600}.card .good{color:var(--good);font-weight:600}
figure{margin:0 0 18px;padding:14px}figure svg,img{width:100%;height:auto;display:block}
figure svg text{fill:var(--ink)}figcaption{color:var(--soft);font-size:13px;margin-top:6px}
.wide{overflow-x:auto;margin:0 0 12px}
table{border-collapse:collapse;width:100%;font-size:14px}
tr:last-child td,tr:last-child th{border-bottom:0}.long{min-width:180px}.word{white-space:nowrap}
td,th{padding:6px 12px;border-bottom:1px solid var(--thin);text-align:left;vertical-align:top}
th{color:var(--soft);font-weight:500}
pre{padding:14px;overflow:auto;font-size:13px;margin:0}
ul{margin:0;padding-left:20px}
.warn{background:var(--warn);border:1px solid var(--edge);border-radius:10px;padding:9px 14px;
margin:10px 0}
@media screen and (max-width:640px){main{padding:14px 12px 48px}h1{font-size:21px}
.card div{grid-template-columns:minmax(0,1fr);padding:7px 12px}.tile b{font-size:18px}
.tiles{grid-template-columns:repeat(2,minmax(0,1fr))}figure{padding:8px;
overflow-x:auto}figure svg,figure img{min-width:600px}figcaption{position:sticky;left:0}}
@media print{:root{color-scheme:light;--page:#fff;--card:#fff;--ink:#000;--soft:#444;--grid:#bbb;
--thin:#ddd;--blue:#2f6fb3;--orange:#c2571a;--green:#3d9361;--warn:#fff;--edge:#888;--good:#000;
--bad:#000}body{font-size:11pt}main{max-width:none;padding:0}figure,.card,tr{break-inside:avoid}
h2{break-after:avoid}.wide{overflow:visible}
pre{white-space:pre-wrap;overflow-wrap:anywhere}a.data{display:none}.raster{filter:none}}
"""
