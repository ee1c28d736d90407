"""Rounds whose dealer dealt before they began, into files, and need not be online.

What the dealer deals hangs on the masks of the clients' rows: <A0_i, A_i> for the first server's
mask A0 and the client's own mask A. Ahead, nobody knows A. So the dealer draws masks B_i itself,
one for each place of a cohort, from seeds that are in the second server's file, and the round
corrects: client i sends Y_i = X_i - A_i to ``server`` and the seed of A_i to ``server/1``, as ever;
``server/1`` sends D_i = A_i - B_i to ``server``; the two go on with Y_i + D_i = X_i - B_i and B_i
(Beaver 1995, correlated randomness that is derandomised).

Who learns what, while all follow: ``server`` sees (Y_i, D_i) = (X_i - A_i, A_i - B_i). It knows
neither A_i, which the client drew, nor B_i, which only the second file holds, and both are uniform
and serve once: so the pair is uniform whatever X_i is. ``server/1`` knows A_i and B_i, as it always
knew the mask, and hears nothing more of X_i than online. Clients do what they always do. The dealer
hears nothing in a round; with either file and that server's mail it reads every row, as an online
dealer does with that server.

THAT A MASK SERVES ONCE IS WHAT IT ALL RESTS ON: under one B_i, two rounds give ``server``
Y' + D' - Y - D = X'_i - X_i. Each server takes its part out of its file before it says anything
that hangs on it (`crypto.mpc.dealt_file`): ``server/1`` first, ``server`` the same one once it
heard the number, and ``server/1`` sends no D before ``server`` has said that it took that one in
this round. Where ``server`` took it before, it says which it took now, nothing is sent, and both go
on with the next that neither had. So a server whose disk was put back alone uses nothing twice.

A place whose client is not among those that both heard is dropped. Where a hidden sum was dealt of
all places, ``server`` then tells ``server/1`` its own seeds of the dropped places, which serve
nobody, and ``server/1`` takes them out of its share.

What a server that LIES gains: ``server/1`` can add what it likes to a row by another D_i, as
``server`` always can to its masked row; the norm check is then of the moved row, and the tags of a
sum are of B_i, so that neither names it. In the result it moves each row within its clip.
"""
