"""A first look: one defence, one attack, one seed, on the digits that scikit-learn brings. Some minutes on two cores.

Run it as a script, or cell by cell in an editor that knows ``# %%`` (VS Code, Spyder, PyCharm; Jupyter with Jupytext).
"""

# %% Protect a network, attack it and its controls, and write runs/first-look/report.html
import leakbench

result = leakbench.run(defense="privatesnn", attack="direct", preset="quick", seeds=1, out="runs/first-look")
print(result)  # in a notebook, `result` alone shows it as a table

# %% What the report says of the defence: one seed is a first look, and names no class
print(result.verdicts[["defense", "outcome", "index", "index_low", "index_high", "missing"]])

# %% How far the attack got on the defence and on the controls, which show whether it works at all
print(result.attacks[["defense", "control", "validity", "index", "index_low", "index_high"]])

# %% Every measured value, as `leakbench export --csv long` writes it: here the accuracies
values = result.values
print(values[values["metric"] == "accuracy"][["defense", "value", "low", "high", "n"]])

# %% Figures of matplotlib
result.plot_leakage().savefig(result.folder / "leakage.png", dpi=150)
result.plot_tradeoff().savefig(result.folder / "tradeoff.png", dpi=150)
result.plot_budget().savefig(result.folder / "budget.png", dpi=150)

# %% What the attack drew, and what the evaluation models see in it
images = result.images("privatesnn", "direct")
hits = sum(one.predicted == one.target and one.accepted is not False for one in images)
print(hits, "of", len(images), "images are classified as the target class, and not as none")
images[0].image.resize((160, 160)).save(result.folder / "first.png")

# %% The same result another day
assert leakbench.load("runs/first-look") == result
