"""How the audit's page looks: one column on a phone, and nothing that scrolls sideways."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light}*{box-sizing:border-box}
body{margin:0;background:#f6f7f9;color:#1b1f24;
font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;overflow-wrap:anywhere}
main{max-width:1200px;margin:0 auto;padding:20px 20px 64px}h1{font-size:23px;margin:0 0 2px}
h2{font-size:17px;margin:22px 0 8px}h3{font-size:15px;margin:18px 0 6px}
.soft{color:#59636e;font-size:13px}
.worst{display:flex;gap:16px;align-items:center;background:#fff;border:1px solid #e3b7ae;
border-left:6px solid #c0392b;border-radius:10px;padding:10px 14px;margin:12px 0 8px}
.worst.none{border-color:#d6dae0;border-left-color:#6a737d}
.worst p{margin:2px 0}.worst .say{flex:1 1 auto;min-width:0}.worst img{max-height:104px;width:auto}
.worst b{color:#a32c1f}.worst.none b{color:#1b1f24}
.chips{display:flex;flex-wrap:wrap;gap:6px;margin:8px 0;padding:0;list-style:none}
.chips a{display:block;padding:3px 10px;border:1px solid #d6dae0;border-radius:14px;background:#fff;
color:#1b1f24;text-decoration:none;font-size:13px}.chips a.bad{border-color:#e3b7ae}
.card{background:#fff;border:1px solid #e3e6ea;border-radius:10px;margin:0 0 10px;padding:0}
.line{display:grid;grid-template-columns:124px 108px minmax(0,1.1fr) minmax(0,1.9fr)
minmax(0,1fr) minmax(0,1.25fr);gap:2px 12px;padding:6px 12px;border-bottom:1px solid #eef0f2;
font-size:13px}
.line:last-child{border-bottom:0}.line.head{color:#59636e;padding:5px 12px}
.line .asset{font-weight:600}.line .spans{grid-column:3/-1;color:#59636e}
.badge{display:inline-block;padding:1px 8px;border-radius:9px;font-size:12px;font-weight:600;
background:#eceff2;color:#3d444d;white-space:nowrap}.badge.leaks{background:#c0392b;color:#fff}
.line.leaks{background:#fdf3f1}
details{background:#fff;border:1px solid #e3e6ea;border-radius:10px;margin:0 0 8px}
summary{cursor:pointer;padding:7px 12px;font-size:14px}
figure{margin:0 0 14px;background:#fff;border:1px solid #e3e6ea;border-radius:10px;padding:14px}
img{max-width:100%;height:auto;display:block}figcaption{color:#59636e;font-size:13px;margin-top:6px}
.wide{background:#fff;border:1px solid #e3e6ea;border-radius:10px;margin:0 0 12px}
table{border-collapse:collapse;width:100%;font-size:13px}
td,th{padding:5px 10px;border-top:1px solid #eef0f2;text-align:left;vertical-align:top}
th{color:#59636e;font-weight:500}
td[data-h="did"],td[data-h^="may"]{overflow-wrap:normal}
.na{color:#59636e}.hot{background:#fdebe7}
@media(max-width:820px){
main{padding:12px 12px 48px}h1{font-size:20px}
.worst{display:block;padding:9px 12px}.worst img{max-height:84px;margin-top:6px}
.line.head{display:none}.line{grid-template-columns:minmax(0,1fr) auto;gap:1px 8px}
.line .badge{justify-self:end}.line>div:nth-child(n+3){grid-column:1/-1}
.line [data-h]:not(:empty)::before,.rows td[data-h]:not(:empty)::before{content:attr(data-h) ": ";
color:#59636e}
.rows thead{display:none}.rows,.rows tbody,.rows tr,.rows td{display:block;width:100%}
.rows tr{border-top:1px solid #d6dae0;padding:6px 0}.rows td{border:0;padding:1px 12px}
.rows td:empty{display:none}}
"""
