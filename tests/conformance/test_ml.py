"""scikit-learn through joblib and delayed, dask-ml, xgboost.dask."""

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask import delayed
from harness import wait_until

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 4))
    y = (x @ [2.0, -1.0, 0.5, 0.0] + rng.normal(scale=0.1, size=600) > 0).astype(int)
    return x, y


def test_s157_joblib(client, data):
    import joblib
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1, 10]}, cv=4)
    with joblib.parallel_backend("dask", client=client):
        search.fit(*data)
    assert search.best_score_ > 0.9
    with joblib.parallel_config(backend="dask", client=client):
        squares = joblib.Parallel()(joblib.delayed(pow)(i, 2) for i in range(50))
    assert squares == [i * i for i in range(50)]


def test_s154_delayed_estimators(client, data):
    import dask
    from sklearn.linear_model import LogisticRegression
    from sklearn.tree import DecisionTreeClassifier

    models = [delayed(LogisticRegression().fit)(*data), delayed(DecisionTreeClassifier().fit)(*data)]
    logistic, tree = dask.compute(*models)
    assert logistic.score(*data) > 0.9 and tree.score(*data) > 0.9


@pytest.mark.parametrize("name", ["StandardScaler", "MinMaxScaler", "PolynomialFeatures"])
def test_s150_preprocessing(client, data, name):
    import dask_ml.preprocessing as ours
    import sklearn.preprocessing as plain

    x = data[0]
    found = getattr(ours, name)().fit_transform(da.from_array(x, chunks=(150, 4))).compute()
    np.testing.assert_allclose(found, getattr(plain, name)().fit_transform(x), atol=1e-9)


def test_s151_categories(client):
    from dask_ml.preprocessing import Categorizer, DummyEncoder, OneHotEncoder

    frame = pd.DataFrame({"color": ["red", "blue", "red", "green"] * 6, "n": range(24)})
    frame["when"] = pd.date_range("2026-01-01", periods=24, freq="D")
    ddf = dd.from_pandas(frame, npartitions=3)
    known = Categorizer().fit_transform(ddf[["color", "n"]])
    assert DummyEncoder().fit_transform(known).compute().shape == (24, 4)
    encoder = OneHotEncoder(sparse_output=False)
    assert encoder.fit_transform(ddf[["color"]].categorize()).compute().to_numpy().sum() == 24
    dummies = dd.get_dummies(ddf[["color"]].categorize()).compute()
    assert dummies.sum().to_dict() == {"color_blue": 6, "color_green": 6, "color_red": 12}
    assert ddf.when.dt.dayofweek.compute().tolist() == frame.when.dt.dayofweek.tolist()


def test_s152_train_test_split(client, data):
    from dask_ml.model_selection import train_test_split

    x = da.from_array(data[0], chunks=(100, 4))
    train, test = train_test_split(x, test_size=0.25, random_state=3)
    again, _ = train_test_split(x, test_size=0.25, random_state=3)
    assert len(train) + len(test) == 600
    np.testing.assert_array_equal(train.compute(), again.compute())


def test_s121_dask_ml_model(client, data):
    from dask_ml.linear_model import LogisticRegression
    from dask_ml.model_selection import GridSearchCV
    from sklearn.svm import SVC

    x, y = data
    model = LogisticRegression(max_iter=10).fit(da.from_array(x, chunks=(150, 4)), da.from_array(y, chunks=150))
    assert model.score(da.from_array(x, chunks=(150, 4)), da.from_array(y, chunks=150)) > 0.9
    search = GridSearchCV(SVC(), {"C": [0.1, 1.0]}, cv=2).fit(x, y)
    assert search.best_score_ > 0.9


def test_s158_xgboost(client, data):
    from xgboost import dask as dxgb

    x, y = data
    dx, dy = da.from_array(x, chunks=(150, 4)), da.from_array(y, chunks=150)
    train = dxgb.DaskDMatrix(client, dx, dy)
    params = {"tree_method": "hist", "objective": "binary:logistic", "nthread": 1}
    result = dxgb.train(client, params, train, num_boost_round=8, evals=[(train, "train")])
    losses = result["history"]["train"]["logloss"]
    assert losses[-1] < losses[0]
    predicted = dxgb.predict(client, result["booster"], dx).compute()
    assert ((predicted > 0.5) == y).mean() > 0.9


def test_s158_xgboost_classifier(client, data):
    from xgboost import dask as dxgb

    x, y = data
    dx, dy = da.from_array(x, chunks=(200, 4)), da.from_array(y, chunks=200)
    model = dxgb.DaskXGBClassifier(n_estimators=8, tree_method="hist", n_jobs=1, early_stopping_rounds=3)
    model.client = client
    model.fit(dx, dy, eval_set=[(dx, dy)])
    assert (model.predict(dx).compute() == y).mean() > 0.9


def test_s082_taxi_end_to_end(client, tmp_path):
    """Parquet, features, dummies, split, gradient boosting: the main use case in one."""
    from dask_ml.model_selection import train_test_split
    from xgboost import dask as dxgb

    rng = np.random.default_rng(1)
    for month in range(3):
        miles = rng.gamma(2, 1.5, 800)
        start = pd.Timestamp(2026, month + 1, 1)
        frame = pd.DataFrame(
            {
                "pickup": start + pd.to_timedelta(rng.uniform(0, 86400 * 28, 800), unit="s"),
                "payment": pd.Categorical(rng.choice(["card", "cash"], 800), categories=["card", "cash"]),
                "miles": miles,
                "fare": 3 + 2.5 * miles + rng.normal(0, 0.5, 800),
            }
        )
        frame.to_parquet(tmp_path / f"{month}.parquet")
    trips = dd.read_parquet(str(tmp_path))
    assert trips.groupby(trips.pickup.dt.month).fare.mean().compute().between(7, 14).all()
    features = dd.get_dummies(trips.assign(hour=trips.pickup.dt.hour)[["miles", "hour", "payment"]].categorize())
    table = features.astype(float).assign(fare=trips.fare).persist()
    train, test = train_test_split(table, random_state=0, shuffle=True, test_size=0.2)
    train, test = train.persist(), test.persist()
    model = dxgb.DaskXGBRegressor(n_estimators=20, tree_method="hist", n_jobs=1)
    model.client = client
    model.fit(train.drop(columns="fare"), train.fare)
    error = (model.predict(test.drop(columns="fare")).compute() - test.fare.compute().to_numpy()).__abs__().mean()
    assert error < 1.5
    wait_until(lambda: not any(client.processing().values()), 10)
